//! Lists that are sets or maps (`x-kubernetes-list-type`): nothing stands in them twice.

use std::collections::HashSet;

use serde_json::Value;

use super::{Node, text};
use crate::field::{Error, Errors, Path};

/// The fields that tell the items of a list of type map apart; none for other lists.
pub(super) fn keys(raw: &Node) -> Vec<&str> {
    let named = raw.get("x-kubernetes-list-map-keys").filter(|_| text(raw, "x-kubernetes-list-type") == "map");
    named.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Finds what stands twice, here and below.
pub(super) fn unique(raw: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    match value {
        Value::Array(items) => {
            own(raw, items, path, errors);
            let Some(of) = raw.get("items").and_then(Value::as_object) else { return };
            items.iter().enumerate().for_each(|(at, item)| unique(of, item, &path.index(at), errors));
        }
        Value::Object(map) => {
            let properties = raw.get("properties").and_then(Value::as_object);
            let additional = raw.get("additionalProperties").and_then(Value::as_object);
            for (key, value) in map {
                match (properties.and_then(|p| p.get(key)).and_then(Value::as_object), additional) {
                    (Some(of), _) => unique(of, value, &path.child(key), errors),
                    (None, Some(of)) => unique(of, value, &path.key(key), errors),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn own(raw: &Node, items: &[Value], path: &Path, errors: &mut Errors) {
    let keys = keys(raw);
    if keys.is_empty() && text(raw, "x-kubernetes-list-type") != "set" {
        return;
    }
    let mut seen = HashSet::new();
    for (at, value) in items.iter().enumerate() {
        let key = if keys.is_empty() { value.clone() } else { key_of(&keys, value) };
        if !seen.insert(key.to_string()) {
            errors.push(Error::duplicate(path.index(at), key));
        }
    }
}

fn key_of(keys: &[&str], value: &Value) -> Value {
    let pairs = keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(key)?.clone())));
    Value::Object(pairs.collect())
}
