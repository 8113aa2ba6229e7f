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

/// Whether labels match a selector that says something at all.
pub fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    !is_empty(selector) && matches(selector, labels)
}

/// Whether labels contain all pairs of a simple map selector (a Service's). An empty map matches nothing here.
pub fn contains(wanted: &Labels, labels: Option<&Labels>) -> bool {
    !wanted.is_empty() && wanted.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Labels, contains, is_empty, matches};

    #[test]
    fn an_absent_label_is_no_value() {
        let labels = Labels::from([("a".to_owned(), "x".to_owned())]);
        let holds = |key: &str, operator: &str| {
            let expression = json!({"key": key, "operator": operator, "values": ["x", "y"]});
            let selector = serde_json::from_value(json!({ "matchExpressions": [expression] })).unwrap();
            matches(&selector, Some(&labels))
        };
        for (operator, present, absent) in
            [("In", true, false), ("NotIn", false, true), ("Exists", true, false), ("DoesNotExist", false, true)]
        {
            assert_eq!((holds("a", operator), holds("b", operator)), (present, absent), "{operator}");
        }
        let equal = serde_json::from_value(json!({"matchLabels": {"b": "x"}})).unwrap();
        assert!(!matches(&equal, Some(&labels)) && !matches(&equal, None) && !is_empty(&equal));
        assert!(!contains(&Labels::new(), Some(&labels)));
        assert!(contains(&labels, Some(&labels)) && !contains(&labels, None));
    }
}
