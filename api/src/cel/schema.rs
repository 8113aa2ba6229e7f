//! From a structural schema to the type that its rules see (`k8s.io/apiserver/pkg/cel/common/schemas.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::escape::escape;
use super::static_type::{ListType, MAX_REQUEST, MapType, Merge, ObjectType, Type};

/// The type of a schema's values; `None` where rules cannot see them (no type, or elements of none).
pub fn type_of(schema: &Value, root: bool) -> Option<Type> {
    let count = |key: &str| schema.get(key).and_then(Value::as_u64);
    if flag(schema, "x-kubernetes-int-or-string") {
        return Some(Type::Dyn(Some(count("maxLength").map_or(MAX_REQUEST - 2, |n| n.saturating_mul(4)))));
    }
    Some(match text(schema, "type") {
        "array" => {
            let items = schema.get("items").filter(|i| i.is_object())?;
            let of = type_of(items, flag(items, "x-kubernetes-embedded-resource"))?;
            let max = count("maxItems").unwrap_or_else(|| (MAX_REQUEST - 2) / (of.min_size() + 1));
            Type::List(Arc::new(ListType { of, max: Some(max), merge: merge(schema) }))
        }
        "object" => match schema.get("additionalProperties").filter(|a| a.is_object()) {
            Some(values) if !root => {
                let of = type_of(values, flag(values, "x-kubernetes-embedded-resource"))?;
                let max = count("maxProperties").unwrap_or_else(|| (MAX_REQUEST - 2) / (of.min_size() + 6));
                Type::Map(Arc::new(MapType { key: Type::String(Some(MAX_REQUEST - 2)), of, max: Some(max) }))
            }
            _ => Type::Object(Arc::new(object(schema, root))),
        },
        "string" => string(schema, count("maxLength")),
        "boolean" => Type::Bool,
        "number" => Type::Double,
        "integer" => Type::Int,
        _ => return None,
    })
}

fn string(schema: &Value, max: Option<u64>) -> Type {
    match text(schema, "format") {
        "byte" => Type::Bytes(Some(max.unwrap_or(MAX_REQUEST - 2))),
        "duration" => Type::Duration,
        "date" | "date-time" => Type::Timestamp,
        _ => {
            let allowed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
            let longest = allowed.filter_map(Value::as_str).map(|text| text.len() as u64).max();
            let max = max.map(|max| max.saturating_mul(4)).or(longest);
            Type::String(Some(max.unwrap_or(MAX_REQUEST - 2)))
        }
    }
}

fn object(schema: &Value, root: bool) -> ObjectType {
    let empty = Map::new();
    let declared = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let mut properties: Map<String, Value> = declared.clone();
    if root {
        let string = json!({"type": "string"});
        let meta = json!({"type": "object", "properties": {"name": string, "generateName": string}});
        properties.extend([("kind".into(), string.clone()), ("apiVersion".into(), string), ("metadata".into(), meta)]);
    }
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut fields = BTreeMap::new();
    let mut min_size = 2;
    for (name, property) in &properties {
        let Some(of) = type_of(property, flag(property, "x-kubernetes-embedded-resource")) else { continue };
        if required.contains(&name.as_str()) && property.get("default").is_none() {
            min_size += name.len() as u64 + of.min_size() + 4;
        }
        if let Some(escaped) = escape(name) {
            fields.insert(escaped, (name.clone(), of));
        }
    }
    ObjectType { name: "object".into(), fields, min_size }
}

fn merge(schema: &Value) -> Merge {
    match text(schema, "x-kubernetes-list-type") {
        "set" => Merge::Set,
        "map" => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            Merge::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => Merge::Atomic,
    }
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}
