//! Whether a schema is structural (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema/{validation,complete}.go`).

use serde_json::{Map, Value, json};

use crate::field::{Error, Errors, Path};
use crate::tree::{flag, get, list, text};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural, in upstream's order (sorted by text).
pub(super) fn structural(schema: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    node(schema, Level::Root, path, &mut errors);
    complete(schema, schema, path, path, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    get(schema, "properties").and_then(Value::as_object).into_iter().flatten()
}

/// A subschema, where it is one.
fn sub<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    get(schema, key).filter(|value| value.is_object())
}

fn node(schema: &Value, level: Level, path: &Path, errors: &mut Errors) {
    let kind = text(schema, "type");
    if kind == "array" && sub(schema, "items").is_none() {
        errors.push(Error::required(path.child("items"), "must be specified"));
    }
    if let Some(items) = sub(schema, "items") {
        node(items, Level::Item, &path.child("items"), errors);
    }
    for (name, property) in properties(schema) {
        node(property, Level::Field, &path.child("properties").key(name), errors);
    }
    if get(schema, "additionalProperties").is_some_and(|a| a.is_object() || a == true) && level == Level::Root {
        errors.push(Error::forbidden(path.child("additionalProperties"), "must not be used at the root"));
    }
    if let Some(values) = sub(schema, "additionalProperties") {
        node(values, Level::Field, &path.child("additionalProperties"), errors);
    }
    extensions(schema, path, errors);
    let (skip, skip_first) = int_or_string(schema);
    values(schema, skip, skip_first, path, errors);
    types(schema, level, path, errors);
    metadata(schema, level, path, errors);
}

fn extensions(schema: &Value, path: &Path, errors: &mut Errors) {
    for other in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if flag(schema, "x-kubernetes-int-or-string") && flag(schema, other) {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(Error::invalid(path.child(other), true, detail));
        }
    }
}

/// Whether `anyOf`, or that of the first `allOf`, is the pattern that int-or-string is written with.
fn int_or_string(schema: &Value) -> (bool, bool) {
    let pattern = json!([{"type": "integer"}, {"type": "string"}]);
    let first = list(schema, "allOf").first().and_then(|first| get(first, "anyOf"));
    (get(schema, "anyOf") == Some(&pattern), first == Some(&pattern))
}

fn types(schema: &Value, level: Level, path: &Path, errors: &mut Errors) {
    let (kind, place) = (text(schema, "type"), path.child("type"));
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let open = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() { Error::required(place, detail) } else { Error::invalid(place, kind, detail) });
    } else if kind.is_empty() && !flag(schema, "x-kubernetes-int-or-string") && !open {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(place, detail));
    }
    if embedded && get(schema, "additionalProperties").is_some() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(Error::forbidden(path.child("additionalProperties"), detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(Error::invalid(path.child("type"), kind, "must be object at the root"));
    }
    if embedded && !open && properties(schema).next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errors.push(Error::required(path.child("properties"), detail));
    }
}

/// Metadata is implied: a schema may restrict its names and nothing else.
fn metadata(schema: &Value, level: Level, path: &Path, errors: &mut Errors) {
    if level != Level::Root && !flag(schema, "x-kubernetes-embedded-resource") {
        return;
    }
    for (name, property) in properties(schema) {
        let place = path.child("properties").key(name);
        let kind = text(property, "type");
        match name.as_str() {
            "kind" | "apiVersion" if kind != "string" => {
                errors.push(Error::invalid(place.child("type"), kind, "must be string"));
            }
            "metadata" => {
                if kind != "object" {
                    errors.push(Error::invalid(place.child("type"), kind, "must be object"));
                }
                if level == Level::Root && !only_names(property) {
                    let detail = "must not specify anything other than name and generateName, but metadata is implicitly \
                                  specified";
                    errors.push(Error::forbidden(place, detail));
                }
            }
            _ => {}
        }
    }
}

fn only_names(metadata: &Value) -> bool {
    let known = |key: &String| matches!(key.as_str(), "type" | "default" | "properties" | "description");
    let names = |(name, _): (&String, &Value)| matches!(name.as_str(), "name" | "generateName");
    metadata.as_object().is_some_and(|map| map.keys().all(known)) && properties(metadata).all(names)
}

/// The value validations of a node.
fn values(schema: &Value, skip: bool, skip_first: bool, path: &Path, errors: &mut Errors) {
    for key in ["anyOf", "allOf", "oneOf"] {
        if skip && key == "anyOf" {
            continue;
        }
        for (at, part) in list(schema, key).iter().enumerate() {
            nested(part, skip_first && key == "allOf" && at == 0, &path.child(key).index(at), errors);
        }
    }
    if let Some(part) = sub(schema, "not") {
        nested(part, false, &path.child("not"), errors);
    }
    let pattern = text(schema, "pattern");
    if let (false, Err(error)) = (pattern.is_empty(), regex::Regex::new(pattern)) {
        let why = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(Error::invalid(path.child("pattern"), pattern, detail));
    }
}

/// What a schema under `allOf`, `anyOf`, `oneOf` or `not` may not have, and what is said about it.
const FORBIDDEN: [(&str, &str); 11] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

fn nested(schema: &Value, skip: bool, path: &Path, errors: &mut Errors) {
    values(schema, skip, false, path, errors);
    if let Some(items) = sub(schema, "items") {
        nested(items, false, &path.child("items"), errors);
    }
    for (name, property) in properties(schema) {
        nested(property, false, &path.child("properties").key(name), errors);
    }
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    for (field, detail) in FORBIDDEN {
        if get(schema, field).is_some_and(|value| !empty(value)) {
            errors.push(Error::forbidden(path.child(field), detail));
        }
    }
    for field in ["x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if get(schema, field).is_some() {
            errors.push(Error::forbidden(path.child(field), "must be undefined to be structural"));
        }
    }
    if properties(schema).any(|(name, _)| name == "metadata") {
        let place = path.child("properties").key("metadata");
        errors.push(Error::forbidden(place, "must not be specified in a nested context"));
    }
}

/// What value validations name must stand in the schema itself.
fn complete(schema: &Value, own: &Value, path: &Path, at: &Path, errors: &mut Errors) {
    let parts = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .flat_map(|key| list(schema, key).iter().enumerate().map(move |(i, part)| (part, at.child(key).index(i))));
    let not = sub(schema, "not").map(|part| (part, at.child("not")));
    for (part, at) in parts.chain(not) {
        complete_nested(part, own, path, &at, errors);
    }
}

fn complete_nested(part: &Value, own: &Value, path: &Path, at: &Path, errors: &mut Errors) {
    complete(part, own, path, at, errors);
    let mut missing = |path: Path, at: &Path| {
        errors.push(Error::required(path, format!("because it is defined in {at}")));
    };
    let mut below = Vec::new();
    if let Some(items) = sub(part, "items") {
        let (path, at) = (path.child("items"), at.child("items"));
        match sub(own, "items") {
            Some(own) => below.push((items, own, path, at)),
            None => missing(path, &at),
        }
    }
    let empty = Map::new();
    let declared = get(own, "properties").and_then(Value::as_object).unwrap_or(&empty);
    for (name, property) in properties(part) {
        let (path, at) = (path.child("properties").key(name), at.child("properties").key(name));
        match declared.get(name) {
            Some(own) => below.push((property, own, path, at)),
            None => missing(path, &at),
        }
    }
    for (part, own, path, at) in below {
        complete_nested(part, own, &path, &at, errors);
    }
}
