//! Label selectors of typed objects (`k8s.io/apimachinery/pkg/apis/meta/v1`, `LabelSelectorAsSelector`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// The labels of an object's metadata.
pub type Labels = BTreeMap<String, String>;

/// Whether labels match. An empty selector matches everything; callers for whom that is nothing ask `is_empty` first.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let get = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    let equal = selector.match_labels.iter().flatten().all(|(k, v)| get(k) == Some(v));
    equal && selector.match_expressions.iter().flatten().all(|r| holds(r, get(&r.key)))
}

fn holds(requirement: &LabelSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |v: &str| requirement.values.iter().flatten().any(|x| x == v);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Whether a selector says nothing at all.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether labels contain all pairs of a simple map selector (a Service's). An empty map matches nothing here.
pub fn contains(wanted: &Labels, labels: Option<&Labels>) -> bool {
    !wanted.is_empty() && wanted.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}
