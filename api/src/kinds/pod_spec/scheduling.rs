//! Where a pod may run: affinity, tolerations, spread.

use serde_json::Value;

use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, map, number, text, texts};
use crate::validation::labels::{label_name, label_selector};
use crate::validation::{dns_label, dns_subdomain, invalid_each, one_of, positive, supported, text as names};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// A pod's affinity.
pub(super) fn affinity(affinity: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(node) = get(affinity, "nodeAffinity") {
        errors.extend(node_affinity(node, &path.child("nodeAffinity")));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = get(affinity, kind) {
            errors.extend(pod_affinity(pods, &path.child(kind)));
        }
    }
    errors
}

fn node_affinity(affinity: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(selector) = get(affinity, REQUIRED) {
        errors.extend(node_selector(selector, &path.child(REQUIRED)));
    }
    for (i, preferred) in list(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        errors.extend(weight(preferred, &path));
        if let Some(term) = get(preferred, "preference") {
            errors.extend(node_term(term, false, &path.child("preference")));
        }
    }
    errors
}

fn weight(preferred: &Value, path: &Path) -> Option<Error> {
    let weight = number(preferred, "weight").unwrap_or_default();
    (!(1..=100).contains(&weight)).then(|| Error::invalid(path.child("weight"), weight, "must be in the range 1-100"))
}

/// A NodeSelector: at least one term.
fn node_selector(selector: &Value, path: &Path) -> Errors {
    let terms = list(selector, "nodeSelectorTerms");
    let path = path.child("nodeSelectorTerms");
    if terms.is_empty() {
        return vec![Error::required(path, "must have at least one node selector term")];
    }
    terms.iter().enumerate().flat_map(|(i, term)| node_term(term, true, &path.index(i))).collect()
}

fn node_term(term: &Value, strict: bool, path: &Path) -> Errors {
    let expressions = list(term, "matchExpressions").iter().enumerate();
    let mut errors: Errors =
        expressions.flat_map(|(i, r)| node_requirement(r, strict, &path.child("matchExpressions").index(i))).collect();
    for (i, requirement) in list(term, "matchFields").iter().enumerate() {
        errors.extend(node_field(requirement, &path.child("matchFields").index(i)));
    }
    errors
}

fn node_requirement(requirement: &Value, strict: bool, path: &Path) -> Errors {
    let values = texts(requirement, "values");
    let values_path = path.child("values");
    let mut errors = match (text(requirement, "operator"), values.len()) {
        ("In" | "NotIn", 0) => {
            vec![Error::required(values_path.clone(), "must be specified when `operator` is 'In' or 'NotIn'")]
        }
        ("Exists" | "DoesNotExist", n) if n > 0 => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            vec![Error::forbidden(values_path.clone(), detail)]
        }
        ("Gt" | "Lt", n) if n != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            vec![Error::required(values_path.clone(), detail)]
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => Errors::new(),
        (other, _) => vec![Error::invalid(path.child("operator"), other, "not a valid selector operator")],
    };
    errors.extend(label_name(text(requirement, "key"), &path.child("key")));
    for (i, value) in values.iter().enumerate().filter(|_| strict) {
        errors.extend(invalid_each(&values_path.index(i), *value, names::label_value(value)));
    }
    errors
}

fn node_field(requirement: &Value, path: &Path) -> Errors {
    let values = texts(requirement, "values");
    let mut errors = match text(requirement, "operator") {
        "In" | "NotIn" if values.len() == 1 => Errors::new(),
        "In" | "NotIn" => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            vec![Error::required(path.child("values"), detail)]
        }
        other => vec![Error::invalid(path.child("operator"), other, "not a valid selector operator")],
    };
    match text(requirement, "key") {
        "metadata.name" => {
            for (i, value) in values.iter().enumerate() {
                errors.extend(dns_subdomain(value, &path.child("values").index(i)));
            }
        }
        key => errors.push(Error::invalid(path.child("key"), key, "not a valid field selector key")),
    }
    errors
}

fn pod_affinity(affinity: &Value, path: &Path) -> Errors {
    let terms = list(affinity, REQUIRED).iter().enumerate();
    let mut errors: Errors = terms.flat_map(|(i, term)| pod_term(term, &path.child(REQUIRED).index(i))).collect();
    for (i, preferred) in list(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        errors.extend(weight(preferred, &path));
        if let Some(term) = get(preferred, "podAffinityTerm") {
            errors.extend(pod_term(term, &path.child("podAffinityTerm")));
        }
    }
    errors
}

fn pod_term(term: &Value, path: &Path) -> Errors {
    let mut errors = label_selector(get(term, "labelSelector"), &path.child("labelSelector"));
    errors.extend(label_selector(get(term, "namespaceSelector"), &path.child("namespaceSelector")));
    for name in texts(term, "namespaces") {
        errors.extend(dns_label(name, &path.child("namespace")));
    }
    errors.extend(label_keys(term, path));
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.push(Error::required(path.child("topologyKey"), "can not be empty"));
    }
    errors.extend(label_name(key, &path.child("topologyKey")));
    errors
}

/// `matchLabelKeys` and `mismatchLabelKeys` beside a selector (which has their expressions already).
fn label_keys(term: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let selector = get(term, "labelSelector");
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = texts(term, field);
        if !keys.is_empty() && selector.is_none() {
            let detail = "must not be specified when labelSelector is not set";
            errors.push(Error::forbidden(path.child(field), detail));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            errors.extend(label_name(key, &path.child(field).index(i)));
        }
    }
    let keys = texts(term, "matchLabelKeys");
    if let Some(selector) = selector {
        let mut seen: Vec<&str> = map(get(selector, "matchLabels")).map(|(key, _)| key.as_str()).collect();
        for key in list(selector, "matchExpressions").iter().map(|e| text(e, "key")) {
            if let Some(i) = keys.iter().position(|k| *k == key).filter(|_| seen.contains(&key)) {
                errors.push(Error::invalid(path.index(i), key, "exists in both matchLabelKeys and labelSelector"));
            }
            seen.push(key);
        }
    }
    let mismatched = texts(term, "mismatchLabelKeys");
    for (i, key) in keys.iter().enumerate().filter(|(_, key)| mismatched.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(Error::invalid(path.child("matchLabelKeys").index(i), *key, detail));
    }
    errors
}

/// A pod's tolerations.
pub(crate) fn tolerations(tolerations: &[Value], path: &Path) -> Errors {
    tolerations.iter().enumerate().flat_map(|(i, t)| toleration(t, &path.index(i))).collect()
}

fn toleration(toleration: &Value, path: &Path) -> Errors {
    let [key, operator, value, effect] = ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
    let operator_path = path.child("operator");
    let mut errors = Errors::new();
    if !key.is_empty() {
        errors.extend(label_name(key, &path.child("key")));
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(Error::invalid(operator_path.clone(), operator, detail));
    }
    if number(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(Error::invalid(path.child("effect"), effect, detail));
    }
    match operator {
        "Equal" | "" => {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                errors.push(Error::invalid(operator_path, value, messages.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            errors.push(Error::invalid(operator_path, value, "value must be empty when `operator` is 'Exists'"));
        }
        "Exists" => {}
        other => errors.push(Error::not_supported(operator_path, other, &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        errors.extend(supported(effect, &path.child("effect"), &EFFECTS));
    }
    errors
}

/// A node's taints.
pub(crate) fn taints(taints: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen = Vec::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        let [key, value, effect] = ["key", "value", "effect"].map(|field| text(taint, field));
        errors.extend(label_name(key, &path.child("key")));
        let messages = names::label_value(value);
        if !messages.is_empty() {
            errors.push(Error::invalid(path.child("value"), value, messages.join(";")));
        }
        errors.extend(one_of(effect, &path.child("effect"), &EFFECTS));
        if seen.contains(&(key, effect)) {
            let mut error = Error::duplicate(path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
        seen.push((key, effect));
    }
    errors
}

/// A pod's topology spread constraints.
pub(super) fn spread(constraints: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        errors.extend(positive(number(constraint, "maxSkew"), &path.child("maxSkew")));
        if key.is_empty() {
            errors.push(Error::required(path.child("topologyKey"), "can not be empty"));
        }
        errors.extend(supported(action, &path.child("whenUnsatisfiable"), &["DoNotSchedule", "ScheduleAnyway"]));
        let twin = |c: &Value| text(c, "topologyKey") == key && text(c, "whenUnsatisfiable") == action;
        if constraints.iter().skip(i + 1).any(twin) {
            let pair = format!("{{{key}, {action}}}");
            errors.push(Error::duplicate(path.child("{topologyKey, whenUnsatisfiable}"), pair));
        }
        errors.extend(min_domains(constraint, action, &path.child("minDomains")));
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = get(constraint, field).and_then(Value::as_str) {
                errors.extend(supported(policy, &path.child(field), &["Honor", "Ignore"]));
            }
        }
        errors.extend(label_keys(constraint, &path));
        errors.extend(label_selector(get(constraint, "labelSelector"), &path.child("labelSelector")));
    }
    errors
}

fn min_domains(constraint: &Value, action: &str, path: &Path) -> Errors {
    let Some(domains) = number(constraint, "minDomains") else { return Errors::new() };
    let mut errors = positive(Some(domains), path);
    if action != "DoNotSchedule" {
        let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.push(Error::invalid(path.clone(), domains, detail));
    }
    errors
}
