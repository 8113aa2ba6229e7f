//! Short words for reading and filling JSON trees, as Go's zero values would have it.

use serde_json::{Map, Value};

/// The text of a field, empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list field, none where it is not there.
pub(crate) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The texts of a list field.
pub(crate) fn texts<'a>(value: &'a Value, field: &str) -> Vec<&'a str> {
    list(value, field).iter().filter_map(Value::as_str).collect()
}

/// The whole number of a field.
pub(crate) fn number(value: &Value, field: &str) -> Option<i64> {
    value.get(field).and_then(Value::as_i64)
}

/// The bool of a field; absent is false.
pub(crate) fn flag(value: &Value, field: &str) -> bool {
    value.get(field).and_then(Value::as_bool).unwrap_or_default()
}

/// A field that is there and not null.
pub(crate) fn get<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    value.get(field).filter(|v| !v.is_null())
}

/// A field that is there and not null, to change in place.
pub(crate) fn get_mut<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    value.get_mut(field).filter(|v| !v.is_null())
}

/// The pairs of a map, none where it is not there.
pub(crate) fn map(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

/// The items of a list field, to change in place.
pub(crate) fn items_mut<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// A field's object, made where there is none. Anything else there is replaced.
pub(crate) fn object<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let child = &mut value[field];
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    child
}

/// Sets a field.
pub(crate) fn set(value: &mut Value, field: &str, to: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        map.insert(field.into(), to.into());
    }
}

/// Sets a field, or takes it away where there is nothing to set.
pub(crate) fn replace(value: &mut Value, field: &str, to: Option<Value>) {
    match (to, value.as_object_mut()) {
        (Some(to), Some(map)) => drop(map.insert(field.into(), to)),
        (None, Some(map)) => drop(map.remove(field)),
        (_, None) => {}
    }
}

/// Sets a field where it is absent, null, or the empty text.
pub(crate) fn fill(value: &mut Value, field: &str, to: impl Into<Value>) {
    if value.get(field).is_none_or(|v| v.is_null() || v == "") {
        set(value, field, to);
    }
}

/// Sets a number where it is absent or zero (for fields that are no pointers in Go).
pub(crate) fn fill_number(value: &mut Value, field: &str, to: i64) {
    if number(value, field).is_none_or(|n| n == 0) {
        set(value, field, to);
    }
}
