//! RFC 7386.

use serde_json::{Map, Value};

/// Merges a patch into a value: null takes away, objects merge, the rest replaces.
pub(super) fn merge(value: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *value = patch;
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(map) = value else { return };
    for (key, patch) in patch {
        match patch {
            Value::Null => {
                map.remove(&key);
            }
            patch => merge(map.entry(key).or_insert(Value::Null), patch),
        }
    }
}
