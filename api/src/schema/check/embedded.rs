//! Whole objects inside a custom resource (`x-kubernetes-embedded-resource`): they have a version and a kind.

use serde_json::{Map, Value};

use super::{Node, flag};
use crate::field::{Error, Errors, Path};
use crate::kinds::NameFormat;
use crate::validation::{object_meta, text};
use crate::{Document, GroupVersion};

/// Checks those of a value, here and below.
pub(super) fn resources(raw: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    match value {
        Value::Object(map) => {
            if flag(raw, "x-kubernetes-embedded-resource") {
                resource(map, path, errors);
            }
            let properties = raw.get("properties").and_then(Value::as_object);
            let additional = raw.get("additionalProperties").and_then(Value::as_object);
            for (key, value) in map {
                match (properties.and_then(|p| p.get(key)).and_then(Value::as_object), additional) {
                    (Some(of), _) => resources(of, value, &path.child(key), errors),
                    (None, Some(of)) => resources(of, value, &path.key(key), errors),
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            let Some(of) = raw.get("items").and_then(Value::as_object) else { return };
            items.iter().enumerate().for_each(|(at, item)| resources(of, item, &path.index(at), errors));
        }
        _ => {}
    }
}

/// What is wrong with a text.
type Problem = fn(&str) -> Option<String>;

fn resource(map: &Map<String, Value>, path: &Path, errors: &mut Errors) {
    let checks: [(&str, Problem); 2] = [("apiVersion", version), ("kind", kind)];
    for (field, problem) in checks {
        let path = path.child(field);
        match map.get(field) {
            None => errors.push(Error::required(path, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(Error::invalid(path, "", "must not be empty"));
            }
            Some(Value::String(text)) => {
                errors.extend(problem(text).map(|why| Error::invalid(path, text.as_str(), why)));
            }
            Some(other) => errors.push(Error::invalid(path, other.clone(), "must be a string")),
        }
    }
    errors.extend(metadata(map, path));
}

fn version(text: &str) -> Option<String> {
    GroupVersion::parse(text).is_none().then(|| format!("unexpected GroupVersion string: {text}"))
}

fn kind(kind: &str) -> Option<String> {
    let wrong = text::label_1035(&kind.to_lowercase());
    (!wrong.is_empty()).then(|| format!("may have mixed case, but should otherwise match: {}", wrong.join(",")))
}

fn metadata(map: &Map<String, Value>, path: &Path) -> Errors {
    let Some(metadata) = map.get("metadata").filter(|metadata| metadata.is_object()) else { return Errors::new() };
    let mut object = Document::new(serde_json::json!({"metadata": metadata})).unwrap_or_default();
    if object.name().is_empty() {
        object.set("/metadata/name", "fakename");
    }
    let mut errors = object_meta(&object, !object.namespace().is_empty(), NameFormat::PathSegment);
    for error in &mut errors {
        error.path = path.child(&error.path.to_string());
    }
    errors
}
