//! Labels and label selectors (`k8s.io/apimachinery/pkg/apis/meta/v1/validation`).

use serde_json::Value;

use super::{invalid_each, text};
use crate::field::{Error, Errors, Path};
use crate::tree::{self, list, map};

/// A label's key.
pub fn label_name(key: &str, path: &Path) -> Errors {
    invalid_each(path, key, text::qualified_name(key))
}

/// A map of labels.
pub fn labels(labels: Option<&Value>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (key, value) in map(labels) {
        errors.extend(label_name(key, path));
        let value = value.as_str().unwrap_or_default();
        errors.extend(invalid_each(path, value, text::label_value(value)));
    }
    errors
}

/// A `metav1.LabelSelector`.
pub fn label_selector(selector: Option<&Value>, path: &Path) -> Errors {
    let Some(selector) = selector else { return Errors::new() };
    let mut errors = labels(selector.get("matchLabels"), &path.child("matchLabels"));
    for (i, requirement) in list(selector, "matchExpressions").iter().enumerate() {
        errors.extend(requirement_errors(requirement, &path.child("matchExpressions").index(i)));
    }
    errors
}

fn requirement_errors(requirement: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let values = list(requirement, "values");
    match tree::text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Error::required(path.child("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(path.child("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(Error::invalid(path.child("operator"), other, "not a valid selector operator")),
    }
    errors.extend(label_name(tree::text(requirement, "key"), &path.child("key")));
    for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
        errors.extend(invalid_each(&path.child("values").index(i), value, text::label_value(value)));
    }
    errors
}
