//! Built-in types as OpenAPI schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{group_version_kind, reference, words};
use crate::schema::{Field, Item, List, Scalar, Shape, Type, TypeRef, group_version_of, type_named};

/// The schema of a type; `versions` are those served, which options and watch events belong to.
pub(super) fn schema(name: &str, versions: &BTreeSet<(&str, &str)>) -> Value {
    let Some(of) = type_named(name) else { return json!({"type": "object"}) };
    let mut schema = if of.fields.is_empty() { plain(of) } else { structure(of) };
    let kinds = kinds(of, versions);
    if !kinds.is_empty() {
        schema["x-kubernetes-group-version-kind"] = kinds.into();
    }
    schema
}

/// A type whose JSON is not an object of fields.
fn plain(of: &Type) -> Value {
    match of.go_name() {
        "Quantity" => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        "IntOrString" => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        "Time" | "MicroTime" => json!({"type": "string", "format": "date-time"}),
        name if name.starts_with("JSON") => json!({}),
        _ => json!({"type": "object"}),
    }
}

fn structure(of: &Type) -> Value {
    let properties: Map<String, Value> = of.fields.iter().map(|f| (f.name.clone(), property(of, f))).collect();
    let required: Vec<&str> = of.fields.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
    let mut schema = json!({"type": "object", "properties": properties});
    let entries = [
        ("required", (!required.is_empty()).then(|| required.into())),
        ("x-kubernetes-map-type", of.atomic.then(|| "atomic".into())),
        ("x-kubernetes-unions", of.unions.clone()),
    ];
    add(&mut schema, entries);
    schema
}

fn add<const N: usize>(schema: &mut Value, entries: [(&str, Option<Value>); N]) {
    if let Value::Object(map) = schema {
        map.extend(entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    }
}

fn property(of: &Type, field: &Field) -> Value {
    let item = &field.item;
    // A type that is anything: nothing can stand beside the reference.
    let bare = item.named.is_some() && matches!(item.shape, Shape::Any);
    let mut schema = match item.named {
        Some(named) if bare => reference(name(named)),
        Some(named) => json!({"allOf": [reference(name(named))]}),
        None => shape(&item.shape),
    };
    let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let entries = [
        ("default", item.default.clone().filter(|default| !default.is_null())),
        ("description", words::of(of.go_name(), &field.name).filter(|_| !bare).map(Value::from)),
        ("enum", (!field.allowed.is_empty()).then(|| field.allowed.clone().into())),
        ("x-kubernetes-patch-strategy", text(&field.patch_strategy)),
        ("x-kubernetes-patch-merge-key", text(&field.merge_key)),
        ("x-kubernetes-map-type", map_type(item)),
    ];
    add(&mut schema, entries);
    schema
}

/// The map type of a field where it differs from its type's own.
fn map_type(item: &Item) -> Option<Value> {
    match &item.shape {
        Shape::Struct { of, atomic } => match (built_in(*of)?.atomic, *atomic) {
            (true, false) => Some("granular".into()),
            (false, true) => Some("atomic".into()),
            _ => None,
        },
        Shape::Map { atomic, .. } => atomic.then(|| "atomic".into()),
        _ => None,
    }
}

fn built_in(of: TypeRef) -> Option<&'static Type> {
    type_named(name(of))
}

fn name(of: TypeRef) -> &'static str {
    crate::schema::name_of(of)
}

fn item(of: &Item) -> Value {
    of.named.map_or_else(|| shape(&of.shape), |named| reference(name(named)))
}

fn shape(of: &Shape) -> Value {
    match of {
        Shape::Any => json!({}),
        Shape::Object | Shape::Struct { .. } => json!({"type": "object"}),
        Shape::Map { of, .. } => json!({"type": "object", "additionalProperties": item(of)}),
        Shape::List { of, kind } => list(of, kind),
        Shape::Scalar(scalar) => scalar_schema(*scalar),
    }
}

fn list(of: &Item, kind: &List) -> Value {
    let mut schema = json!({"type": "array", "items": item(of)});
    let (kind, keys) = match kind {
        List::Unmarked => (None, None),
        List::Atomic => (Some("atomic".into()), None),
        List::Set => (Some("set".into()), None),
        List::Map(keys) => (Some("map".into()), Some(keys.clone().into())),
    };
    add(&mut schema, [("x-kubernetes-list-type", kind), ("x-kubernetes-list-map-keys", keys)]);
    schema
}

fn scalar_schema(of: Scalar) -> Value {
    match of {
        Scalar::String => json!({"type": "string"}),
        Scalar::Bool => json!({"type": "boolean"}),
        Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
        Scalar::Int64 => json!({"type": "integer", "format": "int64"}),
        Scalar::Double => json!({"type": "number", "format": "double"}),
        Scalar::Bytes => json!({"type": "string", "format": "byte"}),
        Scalar::Time | Scalar::MicroTime => json!({"type": "string", "format": "date-time"}),
        Scalar::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Scalar::IntOrString => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
    }
}

/// The kinds that are of a type.
fn kinds(of: &Type, versions: &BTreeSet<(&str, &str)>) -> Vec<Value> {
    let kind = of.go_name();
    let of_all = |kind: &str| {
        let all = versions.iter().copied().chain([("", "v1")]).collect::<BTreeSet<_>>();
        all.iter().map(|(group, version)| group_version_kind(group, version, kind)).collect()
    };
    let has = |name: &str| of.field(name).is_some();
    match (kind, group_version_of(&of.name)) {
        ("DeleteOptions" | "WatchEvent", Some(("meta.k8s.io", _))) => of_all(kind),
        ("Status" | "APIGroup" | "APIGroupList" | "APIResourceList" | "APIVersions", Some(("meta.k8s.io", _))) => {
            vec![group_version_kind("", "v1", kind)]
        }
        (_, Some(("meta.k8s.io", _)) | None) => Vec::new(),
        (_, Some((group, version))) if has("apiVersion") && has("kind") && has("metadata") => {
            vec![group_version_kind(group, version, kind)]
        }
        _ => Vec::new(),
    }
}
