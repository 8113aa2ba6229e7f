//! From a definition to a row: the same value as a built-in resource's.

use std::sync::Arc;

use api::schema::{Column, Scope};
use api::{Document, GroupVersion, GroupVersionKind, Schema};
use serde_json::Value;

use super::rules::Custom;
use crate::row::{Resource, ScalePaths, Storage, Strategy, Subresource, Version};
use crate::rows::{Behaviour, order};

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// The row of a definition; `None` where it has no version to store.
pub(super) fn of(definition: &Document) -> Option<Resource> {
    let text = |pointer: &str| definition.str_at(pointer).to_owned();
    let strings = |pointer: &str| {
        definition.list_at(pointer).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (group, plural, kind) = (text("/spec/group"), text("/spec/names/plural"), text("/spec/names/kind"));
    let described = definition.list_at("/spec/versions");
    let stored = described.iter().find(|v| v.get("storage") == Some(&Value::Bool(true)))?;
    let stored_name = stored.get("name")?.as_str()?;
    let api_version = GroupVersion { group: group.clone(), version: stored_name.into() }.to_string();
    let mut versions: Vec<Version> = described.iter().filter_map(|v| version(&group, &kind, v)).collect();
    versions.sort_by(|a, b| order::versions(&a.name, &b.name));
    let custom = Custom::new(&versions, described, stored);
    let list_kind = match definition.str_at("/spec/names/listKind") {
        "" => format!("{kind}List"),
        given => given.to_owned(),
    };
    Some(Resource {
        singular: match definition.str_at("/spec/names/singular") {
            "" => kind.to_lowercase(),
            given => given.to_owned(),
        },
        list_kind,
        short: strings("/spec/names/shortNames"),
        categories: strings("/spec/names/categories"),
        scope: if definition.str_at("/spec/scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: VERBS.map(str::to_owned).to_vec(),
        subresources: subresources(&group, &kind, stored_name, stored),
        versions,
        strategy: Strategy::Made(Arc::new(custom)),
        storage: Some(Storage { prefix: format!("/registry/{group}/{plural}/"), api_version }),
        behaviour: Behaviour::default(),
        custom: true,
        group,
        plural,
        kind,
    })
}

fn version(group: &str, kind: &str, described: &Value) -> Option<Version> {
    let name = described.get("name")?.as_str()?;
    let gvk = GroupVersionKind { group: group.into(), version: name.into(), kind: kind.into() };
    let schema = described.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
    let flag = |key: &str| described.get(key).and_then(Value::as_bool).unwrap_or_default();
    let warning = described.get("deprecationWarning").and_then(Value::as_str).map(str::to_owned);
    Some(Version {
        served: flag("served"),
        storage: flag("storage"),
        schema: Schema::from_crd(&schema, &gvk),
        columns: columns(described),
        convert: None,
        completes: has_defaults(&schema),
        deprecation: flag("deprecated")
            .then(|| warning.unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated"))),
        name: name.into(),
    })
}

/// Whether a schema has a default anywhere.
fn has_defaults(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            map.get("default").is_some_and(|value| !value.is_null()) || map.values().any(has_defaults)
        }
        Value::Array(items) => items.iter().any(has_defaults),
        _ => false,
    }
}

/// The name, and the definition's own columns or the age.
fn columns(described: &Value) -> Vec<Column> {
    let text = |column: &Value, key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let own = |column: &Value| Column {
        name: text(column, "name"),
        type_name: text(column, "type"),
        format: text(column, "format"),
        priority: column
            .get("priority")
            .and_then(Value::as_i64)
            .and_then(|p| i32::try_from(p).ok())
            .unwrap_or_default(),
    };
    let name = Column { name: "Name".into(), type_name: "string".into(), format: "name".into(), priority: 0 };
    let mut columns = vec![name];
    match described.get("additionalPrinterColumns").and_then(Value::as_array) {
        Some(listed) if !listed.is_empty() => columns.extend(listed.iter().map(own)),
        _ => columns.push(Column { name: "Age".into(), type_name: "date".into(), format: String::new(), priority: 0 }),
    }
    columns
}

fn subresources(group: &str, kind: &str, version: &str, described: &Value) -> Vec<Subresource> {
    let verbs = || ["get", "patch", "update"].map(str::to_owned).to_vec();
    let mut found = Vec::new();
    if described.pointer("/subresources/status").is_some_and(|v| !v.is_null()) {
        let kind = GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() };
        found.push(Subresource { name: "status".into(), kind, verbs: verbs(), scale: None });
    }
    if let Some(scale) = described.pointer("/subresources/scale").filter(|v| !v.is_null()) {
        let path = |key: &str| scale.get(key).and_then(Value::as_str).map(str::to_owned);
        let paths = ScalePaths {
            spec_replicas: path("specReplicasPath").unwrap_or_default(),
            status_replicas: path("statusReplicasPath").unwrap_or_default(),
            selector: path("labelSelectorPath"),
            custom: true,
        };
        let kind = GroupVersionKind { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into() };
        found.push(Subresource { name: "scale".into(), kind, verbs: verbs(), scale: Some(paths) });
    }
    found
}
