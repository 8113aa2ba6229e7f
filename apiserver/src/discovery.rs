//! Discovery, legacy and aggregated, and the OpenAPI documents: all derived from the rows, made when first wanted and
//! kept until the rows change.

use std::collections::HashMap;
use std::sync::Arc;

use api::openapi::{self, Served, ServedSubresource};
use api::schema::Scope;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::row::{Resource, Strategy, Subresource, Version};
use crate::rows::Rows;

/// Documents by name, for one generation of rows. At most one a group and version, and a few more.
#[derive(Default)]
pub(crate) struct Documents(Mutex<(u64, HashMap<String, Document>)>);

/// A document and what its content hashes to.
#[derive(Clone)]
pub(crate) struct Document {
    /// Compact JSON, or what was made of it.
    pub bytes: Bytes,
    /// SHA-512 in upper-case hex, as upstream's ETags are.
    pub hash: Arc<str>,
}

impl Documents {
    /// The document of a name, made by `make` where the rows are new.
    pub(crate) fn get(&self, rows: &Rows, name: &str, make: impl FnOnce() -> Value) -> Document {
        if let Some(document) = self.known(rows, name) {
            return document;
        }
        let bytes = Bytes::from(make().to_string());
        self.keep(rows, name, Document { hash: hash(&bytes).into(), bytes })
    }
}

impl Documents {
    /// Another encoding of a document, under its ETag.
    pub(crate) fn encoded(
        &self,
        rows: &Rows,
        name: &str,
        of: &Document,
        make: impl FnOnce(&Value) -> Vec<u8>,
    ) -> Document {
        if let Some(document) = self.known(rows, name) {
            return document;
        }
        let value = serde_json::from_slice(&of.bytes).unwrap_or_default();
        self.keep(rows, name, Document { bytes: make(&value).into(), hash: Arc::clone(&of.hash) })
    }

    fn known(&self, rows: &Rows, name: &str) -> Option<Document> {
        let mut known = self.0.lock();
        if known.0 != rows.generation {
            *known = (rows.generation, HashMap::new());
        }
        known.1.get(name).cloned()
    }

    fn keep(&self, rows: &Rows, name: &str, document: Document) -> Document {
        let mut known = self.0.lock();
        if known.0 == rows.generation {
            known.1.insert(name.to_owned(), document.clone());
        }
        document
    }
}

fn hash(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA512, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02X}")).collect()
}

/// `/api`.
pub(crate) fn core_versions(advertise: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": advertise}],
    })
}

/// `/apis`.
pub(crate) fn group_list(rows: &Rows) -> Value {
    let groups = rows.groups();
    let named = groups.iter().filter(|(group, _)| !group.is_empty());
    let groups: Vec<Value> = named.map(|(group, versions)| group_entry(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`.
pub(crate) fn group(rows: &Rows, name: &str) -> Option<Value> {
    let groups = rows.groups();
    let (group, versions) = groups.iter().find(|(group, _)| group == name && !group.is_empty())?;
    let mut entry = group_entry(group, versions);
    if let Some(map) = entry.as_object_mut() {
        map.insert("kind".into(), "APIGroup".into());
        map.insert("apiVersion".into(), "v1".into());
    }
    Some(entry)
}

fn group_entry(group: &str, versions: &[String]) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let all: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": group, "versions": all, "preferredVersion": all.first()})
}

/// `/api/v1`, `/apis/{group}/{version}`.
pub(crate) fn resource_list(rows: &Rows, group: &str, version: &str) -> Option<Value> {
    if !rows.has_version(group, version) {
        return None;
    }
    let mut resources: Vec<Value> = Vec::new();
    for row in rows.iter().filter(|row| row.group == group) {
        let Some(version) = row.version(version) else { continue };
        resources.push(resource_entry(row));
        resources.extend(version.subresources.iter().map(|sub| subresource_entry(row, version, sub)));
    }
    // Custom ones come as their definitions do, each with its status before its scale.
    if rows.is_built_in(group) {
        let name = |value: &Value| value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        resources.sort_by_key(name);
    }
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        "resources": resources,
    });
    if let (false, Some(list)) = (group.is_empty(), list.as_object_mut()) {
        list.insert("apiVersion".into(), "v1".into());
    }
    Some(list)
}

fn resource_entry(row: &Resource) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), row.plural.clone().into());
    entry.insert("singularName".into(), row.singular.clone().into());
    entry.insert("namespaced".into(), row.namespaced().into());
    entry.insert("kind".into(), row.kind.clone().into());
    entry.insert("verbs".into(), row.verbs.clone().into());
    if !row.short.is_empty() {
        entry.insert("shortNames".into(), row.short.clone().into());
    }
    if !row.categories.is_empty() {
        entry.insert("categories".into(), row.categories.clone().into());
    }
    if let Some(storage) = row.storage.as_ref().filter(|_| row.has_verb("create")) {
        entry.insert("storageVersionHash".into(), storage_hash(&storage.api_version, &row.kind).into());
    }
    Value::Object(entry)
}

/// Upstream's `discovery.StorageVersionHash`.
fn storage_hash(api_version: &str, kind: &str) -> String {
    let group_version = if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") };
    let text = format!("{group_version}/{kind}");
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    STANDARD.encode(digest.as_ref().get(..8).unwrap_or_default())
}

fn subresource_entry(row: &Resource, version: &Version, sub: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", row.plural, sub.name),
        "singularName": "",
        "namespaced": row.namespaced(),
        "kind": sub.kind.kind,
        "verbs": sub.verbs,
    });
    let foreign = sub.kind.group != row.group || (sub.kind.version != version.name && sub.kind.kind != row.kind);
    if let (true, Some(entry)) = (foreign, entry.as_object_mut()) {
        entry.insert("group".into(), sub.kind.group.clone().into());
        entry.insert("version".into(), sub.kind.version.clone().into());
    }
    entry
}

/// `APIGroupDiscoveryList` of the core group, or of all others.
pub(crate) fn aggregated(rows: &Rows, core: bool) -> Value {
    let groups = rows.groups();
    let wanted = groups.iter().filter(|(group, _)| group.is_empty() == core);
    let items: Vec<Value> = wanted.map(|(group, versions)| aggregated_group(rows, group, versions)).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(rows: &Rows, group: &str, versions: &[String]) -> Value {
    let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
    let version = |name: &String| {
        let mut resources: Vec<Value> = Vec::new();
        let mut of_group: Vec<&Arc<Resource>> = rows.iter().filter(|row| row.group == group).collect();
        of_group.sort_by(|a, b| a.plural.cmp(&b.plural));
        for row in of_group {
            if let Some(version) = row.version(name) {
                resources.push(aggregated_resource(row, version));
            }
        }
        json!({"version": name, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(row: &Resource, version: &Version) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": kind("", "", &row.kind),
        "scope": if row.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    if row.custom {
        entry["responseKind"] = kind(&row.group, &version.name, &row.kind);
    }
    let mut subs: Vec<&Subresource> = version.subresources.iter().collect();
    subs.sort_by(|a, b| a.name.cmp(&b.name));
    let subs: Vec<Value> = subs
        .into_iter()
        .map(|sub| {
            let foreign = sub.kind.group != row.group || sub.kind.kind != row.kind || row.custom;
            let own = sub.kind.group == row.group && !row.custom && sub.kind.version == version.name;
            let response = match foreign && !own {
                true => kind(&sub.kind.group, &sub.kind.version, &sub.kind.kind),
                false => kind("", "", &sub.kind.kind),
            };
            json!({"subresource": sub.name, "responseKind": response, "verbs": sub.verbs})
        })
        .collect();
    if let Some(entry) = entry.as_object_mut() {
        if !row.short.is_empty() {
            entry.insert("shortNames".into(), row.short.clone().into());
        }
        if !row.categories.is_empty() {
            entry.insert("categories".into(), row.categories.clone().into());
        }
        if !subs.is_empty() {
            entry.insert("subresources".into(), subs.into());
        }
    }
    entry
}

/// What the OpenAPI documents need to know of the rows of a group and version, or of all.
pub(crate) fn served(rows: &Rows, only: Option<(&str, &str)>) -> Vec<Served> {
    let mut all = Vec::new();
    for row in rows.iter() {
        for version in row.versions.iter().filter(|v| v.served) {
            if only.is_none_or(|(group, name)| row.group == group && version.name == name) {
                all.push(of_row(row, version));
            }
        }
    }
    all
}

fn of_row(row: &Resource, version: &Version) -> Served {
    let sub = |sub: &Subresource| ServedSubresource {
        name: sub.name.clone(),
        group: sub.kind.group.clone(),
        // Its own kind is that of the version.
        version: if (&sub.kind.group, &sub.kind.kind) == (&row.group, &row.kind) {
            version.name.clone()
        } else {
            sub.kind.version.clone()
        },
        kind: sub.kind.kind.clone(),
        verbs: sub.verbs.clone(),
    };
    Served {
        group: row.group.clone(),
        version: version.name.clone(),
        kind: row.kind.clone(),
        plural: row.plural.clone(),
        namespaced: row.namespaced(),
        verbs: row.verbs.clone(),
        subresources: version.subresources.iter().map(sub).collect(),
        selectable: match &row.strategy {
            Strategy::Made(custom) => custom.selectable_in(&version.name),
            Strategy::BuiltIn(_) => Vec::new(),
        },
        schema: version.schema.clone(),
    }
}

/// The OpenAPI v3 document of a group and version.
pub(crate) fn open_api_v3(rows: &Rows, group: &str, version: &str) -> Value {
    openapi::v3(&served(rows, Some((group, version))))
}

/// The OpenAPI v2 document of everything.
pub(crate) fn open_api_v2(rows: &Rows) -> Value {
    openapi::v2(&served(rows, None))
}

#[cfg(test)]
mod tests {
    use super::storage_hash;

    #[test]
    fn storage_hashes_are_upstreams() {
        assert_eq!(storage_hash("apps/v1", "ControllerRevision"), "85nkx63pcBU=");
    }
}
