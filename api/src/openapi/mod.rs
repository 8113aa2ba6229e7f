//! OpenAPI v2 and v3 documents, derived from the schema table and the rows of the API server.
//!
//! They carry what clients use: paths with their kinds and parameters, types with patch and list metadata. There are no
//! descriptions, and no media types that are not served.

mod custom;
mod definition;
mod operation;
mod paths;
mod protobuf;
#[cfg(test)]
mod tests;
mod v2;
mod words;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::schema::Schema;

/// What a document needs to know of one resource in one version.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Served {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<ServedSubresource>,
    /// Of a custom resource, the fields that a selector may name.
    pub selectable: Vec<String>,
    pub schema: Schema,
}

/// One subresource.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ServedSubresource {
    pub name: String,
    /// Group and version of its body; empty for the resource's own.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

/// The OpenAPI v3 document of one group and version: all `served` must be of it.
pub fn v3(served: &[Served]) -> Value {
    document(served, paths::of_resources(served))
}

/// The OpenAPI v2 document of everything served.
pub fn v2(served: &[Served]) -> Value {
    let mut paths = paths::of_resources(served);
    paths.extend(paths::of_groups(served));
    v2::convert(document(served, paths))
}

/// A document that [`v2`] made, as gnostic's protobuf message `openapi.v2.Document`.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    protobuf::document(document)
}

fn document(served: &[Served], paths: Map<String, Value>) -> Value {
    let version = crate::schema::kubernetes_version().trim_start_matches('v');
    let version = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
    let bearer = json!({"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization",
        "in": "header"});
    let schemas = schemas(served, &paths);
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"BearerToken": bearer}}})
}

/// All types that paths refer to, and those that they refer to in turn.
fn schemas(served: &[Served], paths: &Map<String, Value>) -> Map<String, Value> {
    let versions: BTreeSet<(&str, &str)> = served.iter().map(|s| (s.group.as_str(), s.version.as_str())).collect();
    let mut out = Map::new();
    let mut wanted = Vec::new();
    paths.values().for_each(|path| references(path, &mut wanted));
    while let Some(name) = wanted.pop() {
        if out.contains_key(&name) {
            continue;
        }
        let own = served.iter().find_map(|resource| custom::schema(resource, &name));
        let schema = own.unwrap_or_else(|| definition::schema(&name, &versions));
        references(&schema, &mut wanted);
        out.insert(name, schema);
    }
    out
}

const SCHEMAS: &str = "#/components/schemas/";

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{SCHEMAS}{name}")})
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let name = map.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix(SCHEMAS));
            out.extend(name.map(str::to_owned));
            map.values().for_each(|value| references(value, out));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}
