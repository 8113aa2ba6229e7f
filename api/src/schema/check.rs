//! Validates a custom resource against its structural schema, in kube-openapi's words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde_json::{Map, Value};

use super::Schema;
use crate::decode::node::go_float;
use crate::field::{Error, Errors, Path};
use crate::{Document, time};

mod embedded;
mod lists;
#[cfg(test)]
mod tests;

pub(super) fn check(schema: &Schema, document: &Document, old: Option<&Document>) -> Errors {
    let mut errors = Errors::new();
    let Some(raw) = schema.raw().and_then(Value::as_object) else { return errors };
    type_meta(schema, document, &mut errors);
    if !errors.is_empty() {
        return errors;
    }
    let old = old.map(Document::value);
    node(raw, Sides { new: document.value(), old }, &Path::default(), true, &mut errors);
    embedded::resources(raw, document.value(), &Path::default(), &mut errors);
    let mut repeated = Errors::new();
    old.iter().for_each(|old| lists::unique(raw, old, &Path::default(), &mut repeated));
    if repeated.is_empty() {
        lists::unique(raw, document.value(), &Path::default(), &mut errors);
    }
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
        node(raw, Sides { new: value, old: None }, &Path::default(), false, &mut errors);
        lists::unique(raw, value, &Path::default(), &mut errors);
    }
    errors
}

type Node = Map<String, Value>;

/// A value and the one that it replaces, where it can be told which one that is.
#[derive(Clone, Copy)]
struct Sides<'a> {
    new: &'a Value,
    old: Option<&'a Value>,
}

fn node(raw: &Node, sides: Sides<'_>, path: &Path, root: bool, errors: &mut Errors) {
    let value = sides.new;
    if sides.old == Some(value) || (value.is_null() && flag(raw, "nullable")) {
        return;
    }
    if !type_matches(raw, value) {
        let found = kind_of(value);
        let wanted = if flag(raw, "x-kubernetes-int-or-string") { "integer,string" } else { text(raw, "type") };
        let detail = format!("{} in body must be of type {wanted}: {found:?}", name(path));
        errors.push(Error::type_invalid(path.clone(), found, detail));
    }
    combined(raw, sides, path, errors);
    match value {
        Value::String(string) => string_rules(raw, string, path, errors),
        Value::Number(_) => number_rules(raw, value, path, errors),
        Value::Array(_) => list_rules(raw, sides, path, errors),
        Value::Object(map) => object_rules(raw, map, sides.old, path, root, errors),
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
        // A float without a fraction is one for this check, and none for the rules that follow.
        "integer" => is_whole(value) || value.as_f64().is_some_and(|number| number.fract() == 0.0),
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

/// `allOf`, `anyOf`, `oneOf`, `not`. Where no alternative holds, the errors of the first stand beside.
fn combined(raw: &Node, sides: Sides<'_>, path: &Path, errors: &mut Errors) {
    let list = |key: &str| raw.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let found = |sub: &Node| {
        let mut found = Errors::new();
        node(sub, sides, path, false, &mut found);
        found
    };
    let all: Vec<Errors> = list("allOf").map(found).collect();
    let any: Vec<Errors> = list("anyOf").map(found).collect();
    let one: Vec<Errors> = list("oneOf").map(found).collect();
    let mut must = |detail: &str, failures: Option<&Errors>| {
        errors.push(Error::invalid(Path::default(), "", format!("{:?} {detail}", name(path))));
        errors.extend(failures.into_iter().flatten().cloned());
    };
    if !any.is_empty() && !any.iter().any(Errors::is_empty) {
        must("must validate at least one schema (anyOf)", any.first());
    }
    match one.iter().filter(|errors| errors.is_empty()).count() {
        0 if one.is_empty() => {}
        0 => must("must validate one and only one schema (oneOf). Found none valid", one.first()),
        1 => {}
        count => {
            must(&format!("must validate one and only one schema (oneOf). Found {count} valid alternatives"), None);
        }
    }
    let failures: Errors = all.iter().flatten().cloned().collect();
    if all.iter().any(|errors| !errors.is_empty()) {
        let none = if all.iter().any(Errors::is_empty) { "" } else { ". None validated" };
        errors.extend(failures);
        errors.push(Error::invalid(
            Path::default(),
            "",
            format!("{:?} must validate all the schemas (allOf){none}", name(path)),
        ));
    }
    if raw.get("not").and_then(Value::as_object).is_some_and(|not| found(not).is_empty()) {
        let detail = format!("{:?} must not validate the schema (not)", name(path));
        errors.push(Error::invalid(Path::default(), "", detail));
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

/// That a number is one of the type and format that the schema names.
fn in_range(raw: &Node, value: &Value) -> bool {
    // Go writes a float without a fraction as it writes an integer.
    let whole = value.as_i64().or_else(|| value.as_f64().filter(|number| number.fract() == 0.0).map(|n| n as i64));
    match (text(raw, "type"), text(raw, "format")) {
        ("integer", "int32") => whole.is_some_and(|number| i32::try_from(number).is_ok()),
        ("integer", "uint32") => whole.is_some_and(|number| u32::try_from(number).is_ok()),
        ("integer", "uint64") => value.is_u64(),
        ("integer", _) => whole.is_some(),
        _ => true,
    }
}

fn number_rules(raw: &Node, value: &Value, path: &Path, errors: &mut Errors) {
    let Some(number) = value.as_f64() else { return };
    if !in_range(raw, value) {
        let (kind, format) = (text(raw, "type"), text(raw, "format"));
        let format = if format.is_empty() { "(default format)".to_owned() } else { format!("with format {format}") };
        let detail = format!("Checked value must be of type {kind} {format} in {}", name(path));
        errors.push(Error::invalid(Path::default(), "", detail));
    }
    let bound = |key: &str| raw.get(key).and_then(Value::as_f64);
    let mut must = |holds: bool, rule: &str, bound: f64| {
        if !holds {
            let detail = format!("{} in body should be {rule} {}", name(path), go_float(bound));
            errors.push(Error::invalid(path.clone(), value.clone(), detail));
        }
    };
    if let Some(factor) = bound("multipleOf").filter(|factor| *factor > 0.0) {
        must((number / factor).fract() == 0.0, "a multiple of", factor);
    }
    match (bound("minimum"), flag(raw, "exclusiveMinimum")) {
        (Some(least), false) => must(number >= least, "greater than or equal to", least),
        (Some(least), true) => must(number > least, "greater than", least),
        _ => {}
    }
    match (bound("maximum"), flag(raw, "exclusiveMaximum")) {
        (Some(most), false) => must(number <= most, "less than or equal to", most),
        (Some(most), true) => must(number < most, "less than", most),
        _ => {}
    }
}

fn list_rules(raw: &Node, sides: Sides<'_>, path: &Path, errors: &mut Errors) {
    let items = sides.new.as_array().map_or(&[][..], Vec::as_slice);
    let bound = |key: &str| raw.get(key).and_then(Value::as_u64).map(|n| n as usize);
    if let Some(of) = raw.get("items").and_then(Value::as_object) {
        let keys = lists::keys(raw);
        let before = sides.old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (at, new) in items.iter().enumerate() {
            let same = |old: &&Value| !keys.is_empty() && keys.iter().all(|key| old.get(*key) == new.get(*key));
            node(of, Sides { new, old: before.iter().find(same) }, &path.index(at), false, errors);
        }
    }
    if let Some(most) = bound("maxItems").filter(|most| items.len() > *most) {
        errors.push(Error::too_many(path.clone(), items.len(), most));
    }
    if let Some(least) = bound("minItems").filter(|least| items.len() < *least) {
        let detail = format!("{} in body should have at least {least} items", name(path));
        errors.push(Error::invalid(path.clone(), items.len(), detail));
    }
}

fn object_rules(
    raw: &Node,
    map: &Map<String, Value>,
    old: Option<&Value>,
    path: &Path,
    root: bool,
    errors: &mut Errors,
) {
    let bound = |key: &str| raw.get(key).and_then(Value::as_u64).map(|n| n as usize);
    if let Some(most) = bound("maxProperties").filter(|most| map.len() > *most) {
        errors.push(Error::too_many(path.clone(), map.len(), most));
    }
    if let Some(least) = bound("minProperties").filter(|least| map.len() < *least) {
        let detail = format!("{} in body should have at least {least} properties", name(path));
        errors.push(Error::invalid(path.clone(), map.len(), detail));
    }
    let properties = raw.get("properties").and_then(Value::as_object);
    let additional = raw.get("additionalProperties").and_then(Value::as_object);
    for (key, value) in map.iter().filter(|(key, _)| !(root && *key == "metadata")) {
        let own = properties.and_then(|p| p.get(key)).and_then(Value::as_object);
        if let Some(of) = own.or(additional) {
            let old = old.and_then(|old| old.get(key));
            node(of, Sides { new: value, old }, &path.child(key), false, errors);
        }
    }
    let required = raw.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for key in required.filter(|key| !map.contains_key(*key)) {
        errors.push(Error::required(path.child(key), ""));
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
