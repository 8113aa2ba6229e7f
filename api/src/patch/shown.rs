//! Values as Go's `%v` prints them, for error texts.

use serde_json::{Map, Value};

use crate::decode::node::{Node, go_float};

/// `map[a:1 b:[x y]]`.
pub(crate) fn value(of: &Value) -> String {
    match of {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or_default()),
        Value::Array(items) => list(items),
        Value::Object(entries) => map(entries),
        other => other.to_string(),
    }
}

pub(super) fn map(of: &Map<String, Value>) -> String {
    let mut entries: Vec<String> = of.iter().map(|(k, v)| format!("{k}:{}", value(v))).collect();
    entries.sort();
    format!("map[{}]", entries.join(" "))
}

pub(super) fn list(of: &[Value]) -> String {
    let items: Vec<String> = of.iter().map(value).collect();
    format!("[{}]", items.join(" "))
}

/// Go's error for a patch that should be an object.
pub(super) fn not_a_map(of: &Value) -> String {
    let found = Node::of(of).go_kind();
    format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
}

/// The Go type of an untyped value, as `%s` shows it: of null that is a complaint.
pub fn go_type(of: &Value) -> &'static str {
    match of {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
