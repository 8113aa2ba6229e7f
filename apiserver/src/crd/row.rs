//! From a definition to a row: the same value as a built-in resource's.

use std::sync::Arc;

use api::schema::{Column, Scope};
use api::{Document, GroupVersion, GroupVersionKind, Schema};
use serde_json::Value;

use super::rules::Custom;
use crate::conversion::Converter;
use crate::row::{Resource, ScalePaths, Storage, Strategy, Subresource, Version};
use crate::rows::{Behaviour, order};

/// Where a definition says which of its names are its own.
const ACCEPTED: &str = "/status/acceptedNames";

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// The row of a definition; `None` where it has no version to store.
pub(super) fn of(definition: &Document) -> Option<Resource> {
    // Names that are another's are not served; until names are accepted, nothing is.
    let names = if definition.str_at("/status/acceptedNames/plural").is_empty() { "/spec/names" } else { ACCEPTED };
    let name = |field: &str| definition.str_at(&format!("{names}/{field}")).to_owned();
    let strings = |field: &str| {
        let list = definition.list_at(&format!("{names}/{field}")).iter();
        list.filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let group = definition.str_at("/spec/group").to_owned();
    let (plural, kind) = (name("plural"), name("kind"));
    let described = definition.list_at("/spec/versions");
    let stored = described.iter().find(|v| v.get("storage") == Some(&Value::Bool(true)))?;
    let stored_name = stored.get("name")?.as_str()?;
    let mut versions: Vec<Version> = described.iter().filter_map(|v| version(&group, &kind, v)).collect();
    versions.sort_by(|a, b| order::versions(&a.name, &b.name));
    successors(&group, &kind, &mut versions, described);
    let storage = GroupVersion { group: group.clone(), version: stored_name.into() };
    let api_version = storage.to_string();
    let converter = Converter::of(definition).map(Arc::new);
    let custom = Custom::new(&versions, described, storage, converter.is_some());
    Some(Resource {
        singular: Some(name("singular")).filter(|name| !name.is_empty()).unwrap_or_else(|| kind.to_lowercase()),
        list_kind: Some(name("listKind")).filter(|name| !name.is_empty()).unwrap_or_else(|| format!("{kind}List")),
        short: strings("shortNames"),
        categories: strings("categories"),
        scope: if definition.str_at("/spec/scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: VERBS.map(str::to_owned).to_vec(),
        versions,
        converter,
        strategy: Strategy::Made(Arc::new(custom)),
        storage: Some(Storage { prefix: format!("/registry/{group}/{plural}/"), api_version }),
        behaviour: Behaviour::default(),
        custom: true,
        ending: definition.deleting(),
        group,
        plural,
        kind,
    })
}

/// Warnings of deprecated versions without words of their own name the newest version to use instead.
fn successors(group: &str, kind: &str, versions: &mut [Version], described: &[Value]) {
    let has_own = |version: &Version| {
        let found = described.iter().find(|d| d.get("name").is_some_and(|name| *name == version.name));
        found.and_then(|d| d.get("deprecationWarning")).is_some_and(|warning| !warning.is_null())
    };
    let next = versions.iter().position(|version| version.served && version.deprecation.is_none());
    let Some((at, name)) = next.and_then(|at| Some((at, versions.get(at)?.name.clone()))) else { return };
    for version in versions.iter_mut().skip(at + 1).filter(|version| !has_own(version)) {
        if let Some(warning) = &mut version.deprecation {
            warning.push_str(&format!("; use {group}/{name} {kind}"));
        }
    }
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
        subresources: subresources(&gvk, described),
        convert: None,
        deprecation: flag("deprecated")
            .then(|| warning.unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated"))),
        name: name.into(),
    })
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

fn subresources(kind: &GroupVersionKind, described: &Value) -> Vec<Subresource> {
    let verbs = || ["get", "patch", "update"].map(str::to_owned).to_vec();
    let mut found = Vec::new();
    if described.pointer("/subresources/status").is_some_and(|v| !v.is_null()) {
        found.push(Subresource { name: "status".into(), kind: kind.clone(), verbs: verbs(), scale: None });
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
