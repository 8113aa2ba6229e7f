//! `metadata.managedFields`: who owns which fields, read and written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::set::Set;
use crate::{Document, Timestamp, time};

/// Who an entry is of. Entries of appliers are the same in whatever version they applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    /// `Apply` comes before `Update`.
    pub(super) applies: std::cmp::Reverse<bool>,
    pub(super) name: String,
    /// Empty for appliers.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

/// What a manager owns.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    pub(super) set: Set,
    pub(super) api_version: String,
    pub(super) time: Option<Timestamp>,
}

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Managers(pub(super) BTreeMap<Manager, Owned>);

/// How many managers may have entries from updates before the oldest are merged.
const MAX_UPDATERS: usize = 10;
/// The manager of merged entries.
const ANCIENT: &str = "ancient-changes";

impl Manager {
    pub(super) fn new(name: &str, applies: bool, api_version: &str, subresource: &str) -> Self {
        let name = if name.is_empty() { "unknown" } else { name };
        Self {
            applies: std::cmp::Reverse(applies),
            name: name.to_owned(),
            api_version: if applies { String::new() } else { api_version.to_owned() },
            subresource: subresource.to_owned(),
        }
    }
}

impl Managers {
    /// Reads an object's entries. The error is upstream's text.
    pub(super) fn decode(object: &Document) -> Result<Self, String> {
        let entries = object.list_at("/metadata/managedFields").iter().enumerate();
        entries.map(|(at, entry)| decode(at, entry)).collect::<Result<_, _>>().map(Self)
    }

    /// Writes the entries into an object, sorted as upstream sorts them.
    pub(super) fn encode(&self, object: &mut Document) {
        let seconds = |owned: &Owned| owned.time.map_or(i64::MIN, |time| time.as_second());
        let mut entries: Vec<_> = self.0.iter().filter(|(_, owned)| !owned.set.is_empty()).collect();
        entries.sort_by(|(a, a_owned), (b, b_owned)| {
            let key = |manager: &Manager, owned: &Owned| (manager.applies, seconds(owned), manager.name.clone());
            let then = |manager: &Manager, owned: &Owned| (owned.api_version.clone(), manager.subresource.clone());
            (key(a, a_owned), then(a, a_owned)).cmp(&(key(b, b_owned), then(b, b_owned)))
        });
        if entries.is_empty() {
            object.remove("/metadata/managedFields");
        } else {
            let entries: Vec<Value> = entries.into_iter().map(|(manager, owned)| encode(manager, owned)).collect();
            object.set("/metadata/managedFields", entries);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that is owned.
    pub(super) fn all(&self) -> Set {
        self.0.values().fold(Set::default(), |all, owned| all.union(&owned.set))
    }

    /// Merges the oldest entries from updates until there are no more than ten.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<(i64, Manager)> = self
            .0
            .iter()
            .filter(|(manager, _)| !manager.applies.0)
            .map(|(manager, owned)| (owned.time.map_or(0, |time| time.as_second()), manager.clone()))
            .collect();
        updaters.sort();
        let mut count = updaters.len();
        let mut first: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updaters {
            if count <= MAX_UPDATERS {
                break;
            }
            let Some(owned) = self.0.get(&manager).cloned() else { continue };
            let Some(earlier) = first.get(&owned.api_version).cloned() else {
                first.insert(owned.api_version.clone(), manager);
                continue;
            };
            let bucket = Manager::new(ANCIENT, false, &owned.api_version, "");
            let before = self.0.remove(&bucket);
            let mut parts = vec![manager.clone()];
            // The first of them waits for a second to make a bucket with.
            if before.is_none() || manager == bucket {
                parts.push(earlier);
            }
            let before = before.map(|owned| owned.set).unwrap_or_default();
            let parts = parts.into_iter().filter_map(|part| self.0.remove(&part));
            let ancient = parts.fold(before, |all, part| all.union(&part.set));
            count -= 1;
            self.0.insert(bucket, Owned { set: ancient, ..owned });
        }
    }
}

fn decode(at: usize, entry: &Value) -> Result<(Manager, Owned), String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let applies = match text("operation") {
        "Apply" => true,
        "Update" => false,
        _ => return Err("operation must be `Apply` or `Update`".into()),
    };
    if text("apiVersion").is_empty() {
        return Err("apiVersion must not be empty".into());
    }
    match text("fieldsType") {
        "FieldsV1" => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
        other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
    }
    let set = match entry.get("fieldsV1") {
        None => Set::default(),
        Some(fields) => Set::decode(fields).ok_or("error decoding set")?,
    };
    let manager = Manager {
        name: text("manager").to_owned(),
        ..Manager::new(text("manager"), applies, text("apiVersion"), text("subresource"))
    };
    Ok((manager, Owned { set, api_version: text("apiVersion").to_owned(), time: time::parse(text("time")) }))
}

fn encode(manager: &Manager, owned: &Owned) -> Value {
    let operation = if manager.applies.0 { "Apply" } else { "Update" };
    let mut entry = json!({"manager": manager.name, "operation": operation, "apiVersion": owned.api_version,
        "fieldsType": "FieldsV1", "fieldsV1": owned.set.encode()});
    if let Some(moment) = owned.time {
        entry["time"] = time::rfc3339(moment).into();
    }
    if !manager.subresource.is_empty() {
        entry["subresource"] = manager.subresource.as_str().into();
    }
    entry
}
