//! The rows the server has now: the built-in ones and those of CustomResourceDefinitions. A value, swapped as a whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::GroupResource;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::row::Resource;

mod alias;
mod autoscaling;
pub(crate) mod behaviour;
mod built_in;
pub(crate) mod order;

pub(crate) use behaviour::Behaviour;
pub(crate) use built_in::built_in;

/// All rows.
#[derive(Default)]
pub(crate) struct Rows {
    all: Vec<Arc<Resource>>,
    by_resource: HashMap<GroupResource, Arc<Resource>>,
    /// Higher for every set of rows.
    pub generation: u64,
}

impl Rows {
    /// A set of rows, in the order of discovery.
    pub(crate) fn new(all: Vec<Arc<Resource>>, generation: u64) -> Self {
        let by_resource = all.iter().map(|row| (row.group_resource(), Arc::clone(row))).collect();
        Self { all, by_resource, generation }
    }

    /// In the order of discovery.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.all.iter()
    }

    /// A row by group and plural.
    pub(crate) fn get(&self, resource: &GroupResource) -> Option<&Arc<Resource>> {
        self.by_resource.get(resource)
    }

    /// Whether a group is one of the server's own.
    pub(crate) fn is_built_in(&self, group: &str) -> bool {
        group.is_empty() || self.all.iter().any(|row| row.group == group && !row.custom)
    }

    /// Whether a group is there in that version.
    pub(crate) fn has_version(&self, group: &str, version: &str) -> bool {
        self.all.iter().any(|row| row.group == group && row.version(version).is_some())
    }

    /// The groups in order of discovery, each with its versions, the preferred one first.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut order: Vec<String> = Vec::new();
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in &self.all {
            let known = versions.entry(row.group.clone()).or_insert_with(|| {
                order.push(row.group.clone());
                Vec::new()
            });
            for version in row.versions.iter().filter(|v| v.served) {
                if !known.contains(&version.name) {
                    known.push(version.name.clone());
                }
            }
        }
        let made = |group: &str| self.all.iter().any(|row| row.custom && row.group == group);
        let with = |group: String| {
            let mut known = versions.remove(&group).unwrap_or_default();
            if made(&group) {
                known.sort_by(|a, b| order::versions(a, b));
            }
            (group, known)
        };
        order.into_iter().map(with).collect()
    }
}

/// The current rows.
pub(crate) struct Registry {
    rows: RwLock<Arc<Rows>>,
    changed: watch::Sender<u64>,
}

impl Registry {
    /// Starts with these.
    pub(crate) fn new(rows: Rows) -> Self {
        Self { changed: watch::Sender::new(rows.generation), rows: RwLock::new(Arc::new(rows)) }
    }

    /// The rows as of now.
    pub(crate) fn current(&self) -> Arc<Rows> {
        Arc::clone(&self.rows.read())
    }

    /// Tells the generation of the rows whenever there are others.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Puts other rows in their place.
    pub(crate) fn swap(&self, all: Vec<Arc<Resource>>) {
        let mut rows = self.rows.write();
        let generation = rows.generation + 1;
        *rows = Arc::new(Rows::new(all, generation));
        drop(rows);
        self.changed.send_replace(generation);
    }
}
