//! What may stand in a HorizontalPodAutoscaler (`pkg/apis/autoscaling/validation`).

use serde_json::Value;

use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, number, text};
use crate::validation::invalid_each;
use crate::validation::text::{label, path_segment, qualified_name};
use crate::{GroupVersion, Quantity};

/// The spec.
pub(super) fn spec(spec: &Value, path: &Path) -> Errors {
    let mut errors = replicas(spec, path);
    let target = get(spec, "scaleTargetRef").unwrap_or(&Value::Null);
    errors.extend(reference(target, &path.child("scaleTargetRef"), false));
    errors.extend(metrics(spec, &path.child("metrics")));
    for direction in ["scaleUp", "scaleDown"] {
        let rules = get(spec, "behavior").and_then(|behavior| get(behavior, direction));
        let path = path.child("behavior").child(direction);
        errors.extend(rules.map(|rules| scaling_rules(rules, &path)).unwrap_or_default());
    }
    // Upstream finds this with rules of another sort, which come last.
    if number(spec, "maxReplicas").unwrap_or_default() == 0 {
        errors.push(Error::required(path.child("maxReplicas"), ""));
    }
    errors
}

/// The status: counts are not negative.
pub(super) fn status(status: &Value, path: &Path) -> Errors {
    let fields = ["currentReplicas", "desiredReplicas"];
    fields.iter().flat_map(|f| crate::validation::non_negative(number(status, f), &path.child(f))).collect()
}

fn replicas(spec: &Value, path: &Path) -> Errors {
    let (min, max) = (number(spec, "minReplicas"), number(spec, "maxReplicas").unwrap_or_default());
    let mut errors = Errors::new();
    if let Some(min) = min.filter(|min| *min < 0) {
        errors.push(Error::invalid(path.child("minReplicas"), min, "must be greater than or equal to 0"));
    }
    let path = path.child("maxReplicas");
    if min.is_some_and(|min| max < min) {
        errors.push(Error::invalid(path.clone(), max, "must be greater than or equal to `minReplicas`"));
    }
    if max < 0 {
        errors.push(Error::invalid(path, max, "must be greater than or equal to 1"));
    }
    errors
}

/// A reference to what is scaled or described.
fn reference(of: &Value, path: &Path, core: bool) -> Errors {
    let mut errors = Errors::new();
    for field in ["kind", "name"] {
        errors.extend(match text(of, field) {
            "" => vec![Error::required(path.child(field), "")],
            given => invalid_each(&path.child(field), given, path_segment(given, false)),
        });
    }
    let version = text(of, "apiVersion");
    let detail = match GroupVersion::parse(version) {
        None if version.matches('/').count() > 1 => Some(format!("unexpected GroupVersion string: {version}")),
        parsed if !core && parsed.as_ref().is_none_or(|v| v.group.is_empty()) => {
            Some("apiVersion must specify API group".into())
        }
        _ => None,
    };
    errors.extend(detail.map(|detail| Error::invalid(path.child("apiVersion"), version, detail)));
    errors
}

/// The kinds of metrics with the fields they stand in, in the order they are looked at.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn metrics(spec: &Value, path: &Path) -> Errors {
    let all = list(spec, "metrics");
    let mut errors: Errors = all.iter().enumerate().flat_map(|(i, one)| metric(one, &path.index(i))).collect();
    let from_outside = all.iter().any(|m| matches!(text(m, "type"), "Object" | "External"));
    if number(spec, "minReplicas") == Some(0) && !from_outside {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(Error::forbidden(path.clone(), detail));
    }
    errors
}

fn metric(metric: &Value, path: &Path) -> Errors {
    let kind = text(metric, "type");
    let mut errors = Errors::new();
    if kind.is_empty() {
        errors.push(Error::required(path.child("type"), "must specify a metric source type"));
    }
    let known = SOURCES.iter().find(|(of, _)| *of == kind);
    if known.is_none() {
        let mut names: Vec<&str> = SOURCES.iter().map(|(of, _)| *of).collect();
        names.sort_unstable();
        errors.push(Error::not_supported(path.child("type"), kind, &names));
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|f| get(metric, f).is_some()).collect();
    if let Some(first) = present.first() {
        errors.extend(source(first, get(metric, first).unwrap_or(&Value::Null), &path.child(first)));
    }
    if let Some((_, field)) = known.filter(|(_, field)| !present.contains(field)) {
        let detail = "must populate information for the given metric source";
        errors.push(Error::required(path.child(field), detail));
    }
    if present.len() != 1 {
        let others = present.iter().filter(|field| known.is_none_or(|(_, own)| own != *field));
        errors.extend(others.map(|f| Error::forbidden(path.child(f), "must populate the given metric source only")));
    }
    errors
}

fn source(field: &str, source: &Value, path: &Path) -> Errors {
    let target = get(source, "target").unwrap_or(&Value::Null);
    let at = path.child("target");
    let has = |field: &str| get(target, field).is_some();
    let mut errors = Errors::new();
    match field {
        "resource" | "containerResource" => errors.extend(resource(field, source, path)),
        _ => {
            if field == "object" {
                let described = get(source, "describedObject").unwrap_or(&Value::Null);
                errors.extend(reference(described, &path.child("describedObject"), true));
            }
            let metric = get(source, "metric").unwrap_or(&Value::Null);
            errors.extend(identifier(metric, &path.child("metric")));
        }
    }
    errors.extend(self::target(target, &at));
    let (missing, both) = match field {
        "object" => (
            (!has("value") && !has("averageValue"))
                .then_some(("averageValue", "must set either a target value or averageValue")),
            None,
        ),
        "external" => (
            (!has("value") && !has("averageValue"))
                .then_some(("averageValue", "must set either a target value for metric or a per-pod target")),
            (has("value") && has("averageValue"))
                .then_some(("value", "may not set both a target value for metric and a per-pod target")),
        ),
        "pods" => {
            ((!has("averageValue")).then_some(("averageValue", "must specify a positive target averageValue")), None)
        }
        _ => (
            (!has("averageUtilization") && !has("averageValue"))
                .then_some(("averageUtilization", "must set either a target raw value or a target utilization")),
            (has("averageUtilization") && has("averageValue"))
                .then_some(("averageValue", "may not set both a target raw value and a target utilization")),
        ),
    };
    errors.extend(missing.map(|(field, detail)| Error::required(at.child(field), detail)));
    errors.extend(both.map(|(field, detail)| Error::forbidden(at.child(field), detail)));
    errors
}

fn resource(field: &str, source: &Value, path: &Path) -> Errors {
    let name = text(source, "name");
    let at = path.child("name");
    let mut errors = Errors::new();
    if name.is_empty() {
        errors.push(Error::required(at, "must specify a resource name"));
    } else if field == "containerResource" {
        errors.extend(invalid_each(&at, name, qualified_name(name)));
        if !name.contains('/')
            && !matches!(name, "cpu" | "memory" | "ephemeral-storage")
            && !name.starts_with("hugepages-")
        {
            errors.push(Error::invalid(at, name, "must be a standard resource for containers"));
        }
    }
    if field == "containerResource" {
        let at = path.child("container");
        errors.extend(match text(source, "container") {
            "" => vec![Error::required(at, "must specify a container")],
            container => invalid_each(&at, container, label(container)),
        });
    }
    errors
}

fn identifier(metric: &Value, path: &Path) -> Errors {
    let path = path.child("name");
    match text(metric, "name") {
        "" => vec![Error::required(path, "must specify a metric name")],
        name => invalid_each(&path, name, path_segment(name, false)),
    }
}

fn target(target: &Value, path: &Path) -> Errors {
    let kind = text(target, "type");
    let mut errors = Errors::new();
    if kind.is_empty() {
        errors.push(Error::required(path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(Error::invalid(path.child("type"), kind, detail));
    }
    for field in ["value", "averageValue"] {
        let shown = text(target, field);
        if Quantity::parse(shown).is_ok_and(|q| q.milli_value() <= 0) {
            errors.push(Error::invalid(path.child(field), shown, "must be positive"));
        }
    }
    if let Some(n) = number(target, "averageUtilization").filter(|n| *n < 1) {
        errors.push(Error::invalid(path.child("averageUtilization"), n, "must be greater than 0"));
    }
    errors
}

/// The longest window and the longest period, in seconds.
const MAX_WINDOW: i64 = 3600;
const MAX_PERIOD: i64 = 1800;

fn scaling_rules(rules: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let window = number(rules, "stabilizationWindowSeconds").unwrap_or_default();
    let at = path.child("stabilizationWindowSeconds");
    match window {
        ..0 => errors.push(Error::invalid(at, window, "must be greater than or equal to zero")),
        n if n > MAX_WINDOW => {
            errors.push(Error::invalid(at, window, format!("must be less than or equal to {MAX_WINDOW}")));
        }
        _ => {}
    }
    let select = get(rules, "selectPolicy");
    if let Some(policy) = select.filter(|p| !matches!(p.as_str(), Some("Disabled" | "Max" | "Min"))) {
        let path = path.child("selectPolicy");
        errors.push(Error::not_supported(path, policy.clone(), &["Disabled", "Max", "Min"]));
    }
    let path = path.child("policies");
    if list(rules, "policies").is_empty() {
        errors.push(Error::required(path.clone(), "must specify at least one Policy"));
    }
    for (i, policy) in list(rules, "policies").iter().enumerate() {
        errors.extend(scaling_policy(policy, &path.index(i)));
    }
    errors
}

fn scaling_policy(policy: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let kind = text(policy, "type");
    if !matches!(kind, "Percent" | "Pods") {
        errors.push(Error::not_supported(path.child("type"), kind, &["Percent", "Pods"]));
    }
    for field in ["value", "periodSeconds"] {
        let n = number(policy, field).unwrap_or_default();
        if n <= 0 {
            errors.push(Error::invalid(path.child(field), n, "must be greater than zero"));
        } else if field == "periodSeconds" && n > MAX_PERIOD {
            let detail = format!("must be less than or equal to {MAX_PERIOD}");
            errors.push(Error::invalid(path.child(field), n, detail));
        }
    }
    errors
}
