//! Validates a custom resource against its structural schema, in kube-openapi's words.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde_json::{Map, Value};

use super::Schema;
use crate::decode::node::go_float;
use crate::field::{Error, Errors, Path};
use crate::{Document, time};

pub(super) fn check(schema: &Schema, document: &Document) -> Errors {
    let mut errors = Errors::new();
    let Some(raw) = schema.raw().and_then(Value::as_object) else { return errors };
    type_meta(schema, document, &mut errors);
    node(raw, document.value(), &Path::default(), true, &mut errors);
    errors
}

fn type_meta(schema: &Schema, document: &Document, errors: &mut Errors) {
    let kind = schema.kind();
    let group_version = kind.group_version().to_string();
    for (name, found, wanted) in
        [("kind", document.kind(), kind.kind.as_str()), ("apiVersion", document.api_version(), &group_version)]
    {
        if found != wanted {
            errors.push(Error::invalid(Path::new(name), found, format!("must be {wanted}")));
        }
    }
}

/// Checks a value against a part of a schema.
pub(super) fn value(raw: &Value, value: &Value) -> Errors {
    let mut errors = Errors::new();
    if let Some(raw) = raw.as_object() {
        node(raw, value, &Path::default(), false, &mut errors);
    }
    errors
}

type Node = Map<String, Value>;

fn node(raw: &Node, value: &Value, path: &Path, root: bool, errors: &mut Errors) {
    if value.is_null() && flag(raw, "nullable") {
        return;
    }
    if !type_matches(raw, value) {
        let found = kind_of(value);
        let wanted = text(raw, "type");
        let detail = format!("{} in body must be of type {wanted}: {found:?}", name(path));
        errors.push(Error::type_invalid(path.clone(), found, detail));
        return;
    }
    combined(raw, value, path, errors);
    match value {
        Value::String(string) => string_rules(raw, string, path, errors),
        Value::Number(_) => number_rules(raw, value, path, errors),
        Value::Array(items) => list_rules(raw, items, path, errors),
        Value::Object(map) => object_rules(raw, map, path, root, errors),
        _ => {}
    }
    allowed(raw, value, path, errors);
}

fn type_matches(raw: &Node, value: &Value) -> bool {
    if flag(raw, "x-kubernetes-int-or-string") {
        return value.is_string() || is_whole(value);
    }
    match text(raw, "type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => is_whole(value),
        _ => true,
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`.
fn combined(raw: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    let list = |key: &str| raw.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let passes = |sub: &Node| {
        let mut found = Errors::new();
        node(sub, value, path, false, &mut found);
        found.is_empty()
    };
    list("allOf").for_each(|sub| node(sub, value, path, false, errors));
    let mut must = |holds: bool, detail: &str| {
        if !holds {
            errors.push(Error::invalid(path.clone(), shown(value), format!("{:?} {detail}", name(path))));
        }
    };
    if raw.contains_key("anyOf") {
        must(list("anyOf").any(passes), "must validate at least one schema (anyOf)");
    }
    if raw.contains_key("oneOf") {
        let count = list("oneOf").filter(|sub| passes(sub)).count();
        must(count != 0, "must validate one and only one schema (oneOf). Found none valid");
        must(count < 2, &format!("must validate one and only one schema (oneOf). Found {count} valid alternatives"));
    }
    if let Some(not) = raw.get("not").and_then(Value::as_object) {
        must(!passes(not), "must not validate the schema (not)");
    }
}

fn allowed(raw: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    let Some(values) = raw.get("enum").and_then(Value::as_array) else { return };
    if !values.contains(value) {
        let texts: Vec<String> =
            values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        errors.push(Error::not_supported(path.clone(), value.clone(), &texts));
    }
}

fn string_rules(raw: &Node, string: &str, path: &Path, errors: &mut Errors) {
    let length = string.chars().count() as u64;
    let name = name(path);
    if let Some(most) = raw.get("maxLength").and_then(Value::as_u64).filter(|most| length > *most) {
        errors.push(Error::too_long(path.clone(), most as usize));
    }
    if let Some(least) = raw.get("minLength").and_then(Value::as_u64).filter(|least| length < *least) {
        let detail = format!("{name} in body should be at least {least} chars long");
        errors.push(Error::invalid(path.clone(), string, detail));
    }
    let pattern = text(raw, "pattern");
    if !pattern.is_empty() && Regex::new(pattern).is_ok_and(|regex| !regex.is_match(string)) {
        errors.push(Error::invalid(path.clone(), string, format!("{name} in body should match '{pattern}'")));
    }
    let format = text(raw, "format");
    if !format_holds(format, string) {
        let detail = format!("{name} in body must be of type {format}: {string:?}");
        errors.push(Error::type_invalid(path.clone(), string, detail));
    }
}

pub(crate) fn format_holds(format: &str, string: &str) -> bool {
    match format {
        "date-time" | "datetime" => time::parse(string).is_some(),
        "date" => string.parse::<jiff::civil::Date>().is_ok() && string.len() == 10,
        "ipv4" => string.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => string.parse::<std::net::Ipv6Addr>().is_ok(),
        "uuid" => {
            let hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
            string.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && string.split('-').all(hex)
        }
        "byte" => STANDARD.decode(string).is_ok(),
        _ => true,
    }
}

fn number_rules(raw: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    let Some(number) = value.as_f64() else { return };
    let bound = |key: &str| raw.get(key).and_then(Value::as_f64);
    let mut must = |holds: bool, rule: &str, bound: f64| {
        if !holds {
            let detail = format!("{} in body should be {rule} {}", name(path), go_float(bound));
            errors.push(Error::invalid(path.clone(), value.clone(), detail));
        }
    };
    match (bound("maximum"), flag(raw, "exclusiveMaximum")) {
        (Some(most), false) => must(number <= most, "less than or equal to", most),
        (Some(most), true) => must(number < most, "less than", most),
        _ => {}
    }
    match (bound("minimum"), flag(raw, "exclusiveMinimum")) {
        (Some(least), false) => must(number >= least, "greater than or equal to", least),
        (Some(least), true) => must(number > least, "greater than", least),
        _ => {}
    }
    if let Some(factor) = bound("multipleOf").filter(|factor| *factor > 0.0) {
        must((number / factor).fract() == 0.0, "a multiple of", factor);
    }
}

fn list_rules(raw: &Node, items: &[Value], path: &Path, errors: &mut Errors) {
    let bound = |key: &str| raw.get(key).and_then(Value::as_u64).map(|n| n as usize);
    if let Some(least) = bound("minItems").filter(|least| items.len() < *least) {
        let detail = format!("{} in body should have at least {least} items", name(path));
        errors.push(Error::invalid(path.clone(), items.len(), detail));
    }
    if let Some(most) = bound("maxItems").filter(|most| items.len() > *most) {
        errors.push(Error::too_many(path.clone(), items.len(), most));
    }
    unique(raw, items, path, errors);
    if let Some(of) = raw.get("items").and_then(Value::as_object) {
        items.iter().enumerate().for_each(|(at, value)| node(of, value, &path.index(at), false, errors));
    }
}

fn unique(raw: &Node, items: &[Value], path: &Path, errors: &mut Errors) {
    let keys: Vec<&str> = match text(raw, "x-kubernetes-list-type") {
        "set" => Vec::new(),
        "map" => {
            let keys = raw.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            keys.into_iter().flatten().filter_map(Value::as_str).collect()
        }
        _ => return,
    };
    let mut seen = HashSet::new();
    for (at, value) in items.iter().enumerate() {
        let key = if keys.is_empty() { value.clone() } else { list_key(&keys, value) };
        if !seen.insert(key.to_string()) {
            errors.push(Error::duplicate(path.index(at), key));
        }
    }
}

fn list_key(keys: &[&str], value: &Value) -> Value {
    let pairs = keys.iter().filter_map(|key| Some(((*key).to_owned(), value.get(key)?.clone())));
    Value::Object(pairs.collect())
}

fn object_rules(raw: &Node, map: &Map<String, Value>, path: &Path, root: bool, errors: &mut Errors) {
    let bound = |key: &str| raw.get(key).and_then(Value::as_u64).map(|n| n as usize);
    if let Some(most) = bound("maxProperties").filter(|most| map.len() > *most) {
        errors.push(Error::too_many(path.clone(), map.len(), most));
    }
    if let Some(least) = bound("minProperties").filter(|least| map.len() < *least) {
        let detail = format!("{} in body should have at least {least} properties", name(path));
        errors.push(Error::invalid(path.clone(), map.len(), detail));
    }
    let required = raw.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for key in required.filter(|key| !map.contains_key(*key)) {
        errors.push(Error::required(path.child(key), ""));
    }
    let properties = raw.get("properties").and_then(Value::as_object);
    let additional = raw.get("additionalProperties").and_then(Value::as_object);
    for (key, value) in map.iter().filter(|(key, _)| !(root && *key == "metadata")) {
        let own = properties.and_then(|p| p.get(key)).and_then(Value::as_object);
        if let Some(of) = own.or(additional) {
            node(of, value, &path.child(key), false, errors);
        }
    }
}

/// The value of an error about alternatives: containers are not repeated.
fn shown(value: &Value) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) => "".into(),
        other => other.clone(),
    }
}

fn name(path: &Path) -> String {
    match path.to_string() {
        root if root == "<nil>" => String::new(),
        path => path,
    }
}

fn flag(node: &Node, name: &str) -> bool {
    node.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn text<'a>(node: &'a Node, name: &str) -> &'a str {
    node.get(name).and_then(Value::as_str).unwrap_or_default()
}
