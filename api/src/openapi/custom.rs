//! Custom resources as OpenAPI schemas.

use serde_json::{Value, json};

use super::{Served, group_version_kind, reference, words};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The name of a resource's type: of custom ones, the group reversed, version and kind.
pub(super) fn type_name(served: &Served) -> String {
    if !served.schema.is_custom() {
        return served.schema.root().name.clone();
    }
    let mut group: Vec<&str> = served.group.split('.').collect();
    group.reverse();
    format!("{}.{}.{}", group.join("."), served.version, served.kind)
}

/// The schema that `name` is, if it is the resource's or its list's.
pub(super) fn schema(served: &Served, name: &str) -> Option<Value> {
    if !served.schema.is_custom() {
        return None;
    }
    let own = type_name(served);
    match name.strip_prefix(&own)? {
        "" => Some(object(served)),
        "List" => Some(list(served, &own)),
        _ => None,
    }
}

fn object(served: &Served) -> Value {
    let mut schema = served.schema.raw().filter(|raw| raw.is_object()).cloned().unwrap_or_else(|| json!({}));
    embed(&mut schema, true);
    let kind = group_version_kind(&served.group, &served.version, &served.kind);
    schema["x-kubernetes-group-version-kind"] = json!([kind]);
    with_selectable(schema, served)
}

/// Names the fields that a selector may name.
fn with_selectable(mut schema: Value, served: &Served) -> Value {
    if !served.selectable.is_empty() {
        let fields: Vec<Value> = served.selectable.iter().map(|path| json!({"fieldPath": path})).collect();
        schema["x-kubernetes-selectable-fields"] = fields.into();
    }
    schema
}

/// Adds apiVersion, kind and metadata to the root and to embedded resources.
fn embed(schema: &mut Value, root: bool) {
    let Value::Object(map) = schema else { return };
    for key in ["properties", "items", "additionalProperties"] {
        match (key, map.get_mut(key)) {
            ("properties", Some(Value::Object(fields))) => fields.values_mut().for_each(|field| embed(field, false)),
            (_, Some(nested)) => embed(nested, false),
            _ => {}
        }
    }
    if root || map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        let fields = map.entry("properties").or_insert_with(|| json!({}));
        let text = |field| json!({"type": "string", "description": words::of("", field)});
        fields["apiVersion"] = text("apiVersion");
        fields["kind"] = text("kind");
        fields["metadata"] = metadata("ObjectMeta");
    }
}

fn metadata(of: &str) -> Value {
    json!({"allOf": [reference(&format!("{META}{of}"))], "description": words::of("", "metadata")})
}

fn list(served: &Served, own: &str) -> Value {
    let text = |field| json!({"type": "string", "description": words::of("", field)});
    let kind = group_version_kind(&served.group, &served.version, &format!("{}List", served.kind));
    let list = json!({"type": "object", "required": ["items"], "properties": {
        "apiVersion": text("apiVersion"), "kind": text("kind"),
        "items": {"type": "array", "items": reference(own), "description": words::of("", "items")},
        "metadata": metadata("ListMeta")},
        "x-kubernetes-group-version-kind": [kind]});
    with_selectable(list, served)
}
