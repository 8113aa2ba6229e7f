//! References to a pod's own fields and resources (the downward API).

use serde_json::Value;

use crate::Quantity;
use crate::field::{Error, Errors, Path};
use crate::tree::{get, text};
use crate::validation::qualified_name;

const ENVIRONMENT: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// A `fieldRef` of an environment variable.
pub(super) fn of_environment(reference: &Value, path: &Path) -> Errors {
    field(reference, path, &ENVIRONMENT)
}

/// A `fieldRef` of a file.
pub(super) fn of_volume(reference: &Value, path: &Path) -> Errors {
    field(reference, path, &VOLUME)
}

fn field(reference: &Value, path: &Path, allowed: &[&str]) -> Errors {
    let field = text(reference, "fieldPath");
    if text(reference, "apiVersion").is_empty() {
        return vec![Error::required(path.child("apiVersion"), "")];
    }
    if field.is_empty() {
        return vec![Error::required(path.child("fieldPath"), "")];
    }
    let subscript = field.strip_suffix("']").and_then(|f| f.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => qualified_name(&key.to_lowercase(), path),
        Some(("metadata.labels", key)) => qualified_name(key, path),
        Some((other, _)) if is_convertible(other) => {
            vec![Error::invalid(path.clone(), other, "does not support subscript")]
        }
        None if allowed.contains(&field) => Errors::new(),
        None if is_convertible(field) => vec![Error::not_supported(path.child("fieldPath"), field, allowed)],
        _ => {
            let detail = format!("error converting fieldPath: field label not supported: {field}");
            vec![Error::invalid(path.child("fieldPath"), field, detail)]
        }
    }
}

/// Whether upstream's conversion of pod field labels knows a field.
fn is_convertible(field: &str) -> bool {
    ENVIRONMENT.contains(&field)
        || VOLUME.contains(&field)
        || matches!(field, "spec.restartPolicy" | "spec.schedulerName" | "status.phase" | "spec.host")
}

/// A `resourceFieldRef`. In a volume it must say whose.
pub(super) fn resource(reference: &Value, path: &Path, in_volume: bool) -> Errors {
    let resource = text(reference, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    let mut errors = if in_volume && text(reference, "containerName").is_empty() {
        vec![Error::required(path.child("containerName"), "")]
    } else if resource.is_empty() {
        vec![Error::required(path.child("resource"), "")]
    } else if RESOURCES.contains(&resource) || huge {
        Errors::new()
    } else {
        vec![Error::not_supported(path.child("resource"), resource, &RESOURCES)]
    };
    let divisor = get(reference, "divisor").and_then(Value::as_str).and_then(|text| Quantity::parse(text).ok());
    if let Some(divisor) = divisor.filter(|d| !d.is_zero()) {
        errors.extend(bad_divisor(resource, &divisor.to_string(), path));
    }
    errors
}

fn bad_divisor(resource: &str, divisor: &str, path: &Path) -> Option<Error> {
    let sizes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (allowed, shown, what): (&[&str], String, &str) = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => (&["1m", "1"], "1m and 1".into(), "cpu"),
        "memory" => (&sizes, sizes.join(", "), "memory"),
        "ephemeral-storage" => (&sizes, sizes.join(", "), "local ephemeral storage"),
        name if name.starts_with("hugepages-") => (&sizes, sizes.join(", "), "hugepages"),
        _ => return None,
    };
    let detail = format!("only divisor's values {shown} are supported with the {what} resource");
    (!allowed.contains(&divisor)).then(|| Error::invalid(path.child("divisor"), resource, detail))
}
