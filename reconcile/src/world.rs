//! What the watches last said, and on top of it what we wrote that has not come back yet.
//!
//! One rule carries both: of two states of an object the one with the higher resourceVersion is shown, and an object
//! that a write made or changed beyond what the watch has said stays until the watch has passed that revision.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{ObjectName, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controller::{Change, Index};
use crate::outcome::Live;
use crate::resource::{Key, Kind, Object, Resource, name_of, revision_of};

/// The objects of one API server, per resource.
#[derive(Default)]
pub struct World {
    tables: HashMap<Resource, Table>,
    resources: Vec<Resource>,
    live: HashMap<(&'static str, Key), HashMap<Live, Answer>>,
    failures: HashMap<(&'static str, Key), Failure>,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<ObjectName, Entry>,
    /// The revision up to which the watch has spoken.
    watched: u64,
    synced: bool,
    /// Uids that we deleted and the watch has not yet reported gone.
    gone: BTreeSet<String>,
    by_uid: HashMap<String, ObjectName>,
    by_owner: HashMap<String, BTreeSet<ObjectName>>,
    indexes: Vec<(Index, HashMap<String, BTreeSet<ObjectName>>)>,
}

struct Entry {
    object: Arc<dyn Object>,
    revision: u64,
    changed_at: Timestamp,
}

/// What the API server answered to a `Live` question.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Answer {
    Object(Option<Arc<dyn Object>>),
    List(Vec<Arc<dyn Object>>),
    Resources(Vec<Resource>),
    Access(bool),
    /// It could not be answered.
    Failed(String),
}

/// Why the effects of a key could not be performed the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The HTTP code; 0 where there was no answer.
    pub code: u16,
    /// The Status' reason, `Forbidden` and so on.
    pub reason: String,
    /// The Status' message.
    pub message: String,
}

impl World {
    /// A typed object. `None` also where the resource is not watched as this type.
    pub fn get<T: Kind>(&self, name: &ObjectName) -> Option<&T> {
        cast(&self.table::<T>()?.entries.get(name)?.object)
    }

    /// All objects of a kind, ordered by namespace and name.
    pub fn list<T: Kind>(&self) -> impl Iterator<Item = &T> {
        self.table::<T>().into_iter().flat_map(|t| t.entries.values()).filter_map(|e| cast(&e.object))
    }

    /// The objects of a kind in a namespace, ordered by name.
    pub fn in_namespace<T: Kind>(&self, namespace: &str) -> impl Iterator<Item = &T> {
        let from = ObjectName { namespace: namespace.into(), name: String::new() };
        let range = self.table::<T>().map(|t| t.entries.range(from..));
        let namespace = namespace.to_owned();
        let within = range.into_iter().flatten().take_while(move |(name, _)| name.namespace == namespace);
        within.filter_map(|(_, e)| cast(&e.object))
    }

    /// The objects of a kind that name an owner by its uid (controller or not).
    pub fn owned<T: Kind>(&self, uid: &str) -> impl Iterator<Item = &T> {
        let table = self.table::<T>();
        let names = table.and_then(|t| t.by_owner.get(uid)).into_iter().flatten();
        names.filter_map(move |n| cast(&table?.entries.get(n)?.object))
    }

    /// The objects of a kind under one string of an index.
    pub fn indexed<T: Kind>(&self, index: &str, value: &str) -> impl Iterator<Item = &T> {
        let table = self.table::<T>();
        let found = table.and_then(|t| t.indexes.iter().find(|(i, _)| i.name == index));
        let names = found.and_then(|(_, map)| map.get(value)).into_iter().flatten();
        names.filter_map(move |n| cast(&table?.entries.get(n)?.object))
    }

    /// An object of any watched resource.
    pub fn object(&self, resource: &Resource, name: &ObjectName) -> Option<&Arc<dyn Object>> {
        Some(&self.tables.get(resource)?.entries.get(name)?.object)
    }

    /// All objects of any watched resource.
    pub fn objects(&self, resource: &Resource) -> impl Iterator<Item = &Arc<dyn Object>> {
        self.tables.get(resource).into_iter().flat_map(|t| t.entries.values()).map(|e| &e.object)
    }

    /// The objects of any watched resource in a namespace.
    pub fn objects_in(&self, resource: &Resource, namespace: &str) -> impl Iterator<Item = &Arc<dyn Object>> {
        let from = ObjectName { namespace: namespace.into(), name: String::new() };
        let range = self.tables.get(resource).map(|t| t.entries.range(from..));
        let namespace = namespace.to_owned();
        let within = range.into_iter().flatten().take_while(move |(name, _)| name.namespace == namespace);
        within.map(|(_, e)| &e.object)
    }

    /// The object of a uid within a resource.
    pub fn by_uid(&self, resource: &Resource, uid: &str) -> Option<&Arc<dyn Object>> {
        let table = self.tables.get(resource)?;
        Some(&table.entries.get(table.by_uid.get(uid)?)?.object)
    }

    /// Everything watched that names an owner by its uid.
    pub fn dependents(&self, uid: &str) -> Vec<(&Resource, &Arc<dyn Object>)> {
        let of_table = |(resource, table)| dependents_in(resource, table, uid);
        let mut found: Vec<_> = self.tables.iter().flat_map(of_table).collect();
        found.sort_by(|a, b| (a.0, name_of(a.1.metadata())).cmp(&(b.0, name_of(b.1.metadata()))));
        found
    }

    /// When an object was last seen to change, by our own clock.
    pub fn changed_at(&self, resource: &Resource, name: &ObjectName) -> Option<Timestamp> {
        Some(self.tables.get(resource)?.entries.get(name)?.changed_at)
    }

    /// The revision up to which the watch of a resource has spoken.
    pub fn watched(&self, resource: &Resource) -> u64 {
        self.tables.get(resource).map_or(0, |t| t.watched)
    }

    /// Whether the first list of a resource has come.
    pub fn synced(&self, resource: &Resource) -> bool {
        self.tables.get(resource).is_some_and(|t| t.synced)
    }

    /// The watched resource of an `apiVersion` and kind, or of the same group and kind in another version.
    pub fn resource(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        let group = api_version.split_once('/').map_or("", |(g, _)| g);
        let same = |r: &&Resource| r.kind == kind && r.group == group;
        let known = || self.tables.keys().chain(&self.resources);
        known().filter(same).find(|r| r.api_version() == api_version).or_else(|| known().filter(same).min())
    }

    /// What discovery last said.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The answer to a live question that a decider asked for a key and has not yet decided on. Another's answer does
    /// not count: it may be from before this one asked.
    pub fn live(&self, decider: &'static str, key: &Key, question: &Live) -> Option<&Answer> {
        self.live.get(&(decider, key.clone()))?.get(question)
    }

    /// Why the last effects that a decider asked for a key failed, if they did.
    pub fn failure(&self, decider: &'static str, key: &Key) -> Option<&Failure> {
        self.failures.get(&(decider, key.clone()))
    }

    fn table<T: Kind>(&self) -> Option<&Table> {
        self.tables.get(&Resource::of::<T>())
    }
}

/// How the world learns. Called by the driver and by tests.
impl World {
    /// Begins to keep a resource, with its indexes; again for more indexes.
    pub fn keep(&mut self, resource: &Resource, indexes: &[Index]) {
        let table = self.tables.entry(resource.clone()).or_default();
        for index in indexes {
            table.add_index(*index);
        }
    }

    /// No longer keeps a resource; its objects are gone.
    pub fn forget(&mut self, resource: &Resource) -> Vec<Change> {
        let table = self.tables.remove(resource).unwrap_or_default();
        let gone = |e: Entry| Change { resource: resource.clone(), before: Some(e.object), after: None };
        table.entries.into_values().map(gone).collect()
    }

    /// The first or a new list: everything there is as of `revision`.
    pub fn listed(
        &mut self,
        resource: &Resource,
        objects: Vec<Arc<dyn Object>>,
        revision: u64,
        now: Timestamp,
    ) -> Vec<Change> {
        let table = self.tables.entry(resource.clone()).or_default();
        let listed: BTreeSet<ObjectName> = objects.iter().map(|o| name_of(o.metadata())).collect();
        let stale =
            |(name, e): (&ObjectName, &Entry)| (e.revision <= revision && !listed.contains(name)).then(|| name.clone());
        let stale: Vec<ObjectName> = table.entries.iter().filter_map(stale).collect();
        let gone = stale.iter().filter_map(|name| table.remove(name));
        let mut changes: Vec<Change> =
            gone.map(|o| Change { resource: resource.clone(), before: Some(o), after: None }).collect();
        let uids: BTreeSet<&str> = objects.iter().filter_map(|o| o.metadata().uid.as_deref()).collect();
        table.gone.retain(|uid| uids.contains(uid.as_str()));
        changes.extend(objects.into_iter().flat_map(|o| table.put(resource, o, now)));
        table.watched = table.watched.max(revision);
        table.synced = true;
        changes
    }

    /// The watch says that an object is now so.
    pub fn said(&mut self, resource: &Resource, object: Arc<dyn Object>, now: Timestamp) -> Vec<Change> {
        let table = self.tables.get_mut(resource);
        let table = table.and_then(|t| t.hears(revision_of(object.metadata())).then_some(t));
        table.map(|t| t.put(resource, object, now)).unwrap_or_default()
    }

    /// The watch says that an object is gone; `object` is its last state.
    pub fn said_gone(&mut self, resource: &Resource, object: &dyn Object) -> Option<Change> {
        let table = self.tables.get_mut(resource)?;
        let meta = object.metadata();
        let revision = revision_of(meta);
        if !table.hears(revision) {
            return None;
        }
        if let Some(uid) = &meta.uid {
            table.gone.remove(uid);
        }
        let name = name_of(meta);
        let newer = table.entries.get(&name).is_some_and(|e| e.revision > revision);
        let before = if newer { None } else { table.remove(&name) }?;
        Some(Change { resource: resource.clone(), before: Some(before), after: None })
    }

    /// The watch says that nothing else happened up to `revision`.
    pub fn bookmark(&mut self, resource: &Resource, revision: u64) {
        if let Some(table) = self.tables.get_mut(resource) {
            table.watched = table.watched.max(revision);
        }
    }

    /// A write of ours was answered with this object. Ignored where the watch has already said more.
    pub fn wrote(&mut self, resource: &Resource, object: Arc<dyn Object>, now: Timestamp) -> Vec<Change> {
        let table = self.tables.get_mut(resource);
        let table = table.filter(|t| revision_of(object.metadata()) > t.watched);
        table.map(|t| t.put(resource, object, now)).unwrap_or_default()
    }

    /// A deletion of ours was answered: the object of this uid is gone.
    pub fn wrote_gone(&mut self, resource: &Resource, uid: &str) -> Option<Change> {
        let table = self.tables.get_mut(resource)?;
        let name = table.by_uid.get(uid)?.clone();
        table.gone.insert(uid.into());
        let before = table.remove(&name)?;
        Some(Change { resource: resource.clone(), before: Some(before), after: None })
    }

    /// What discovery says.
    pub fn discovered(&mut self, resources: Vec<Resource>) {
        self.resources = resources;
    }

    /// Puts the answer to a live question in, for the one who asked.
    pub fn answer(&mut self, decider: &'static str, key: &Key, question: Live, answer: Answer) {
        self.live.entry((decider, key.clone())).or_default().insert(question, answer);
    }

    /// Takes all answers to what a decider asked for a key out: it has decided.
    pub fn unanswer(&mut self, decider: &'static str, key: &Key) {
        self.live.remove(&(decider, key.clone()));
    }

    /// Remembers or forgets why the effects for a key failed.
    pub fn failed(&mut self, decider: &'static str, key: &Key, failure: Option<Failure>) {
        let key = (decider, key.clone());
        match failure {
            Some(failure) => drop(self.failures.insert(key, failure)),
            None => drop(self.failures.remove(&key)),
        }
    }
}

impl Table {
    /// Whether an event is news: a watch speaks in the order of revisions, so what is not newer was said before. An
    /// old state told again must not raise the dead.
    fn hears(&mut self, revision: u64) -> bool {
        let news = revision > self.watched || revision == 0;
        self.watched = self.watched.max(revision);
        news
    }

    /// Puts an object in unless something newer is there. Another object of the same name means that the one before is
    /// gone: whoever waits for that hears of it first.
    fn put(&mut self, resource: &Resource, object: Arc<dyn Object>, now: Timestamp) -> Vec<Change> {
        let meta = object.metadata();
        let (name, revision) = (name_of(meta), revision_of(meta));
        let gone = meta.uid.as_ref().is_some_and(|uid| self.gone.contains(uid));
        if gone || self.entries.get(&name).is_some_and(|e| e.revision >= revision && revision != 0) {
            return Vec::new();
        }
        let mut before = self.remove(&name);
        let mut changes = Vec::new();
        if before.as_ref().is_some_and(|b| b.metadata().uid != meta.uid) {
            changes.push(Change { resource: resource.clone(), before: before.take(), after: None });
        }
        self.link(&name, object.as_ref());
        self.entries.insert(name, Entry { object: object.clone(), revision, changed_at: now });
        changes.push(Change { resource: resource.clone(), before, after: Some(object) });
        changes
    }

    fn remove(&mut self, name: &ObjectName) -> Option<Arc<dyn Object>> {
        let entry = self.entries.remove(name)?;
        self.unlink(name, entry.object.as_ref());
        Some(entry.object)
    }

    fn link(&mut self, name: &ObjectName, object: &dyn Object) {
        if let Some(uid) = &object.metadata().uid {
            self.by_uid.insert(uid.clone(), name.clone());
        }
        for owner in owner_uids(object.metadata()) {
            self.by_owner.entry(owner.into()).or_default().insert(name.clone());
        }
        for (index, map) in &mut self.indexes {
            if let Some(value) = (index.of)(object) {
                map.entry(value.into()).or_default().insert(name.clone());
            }
        }
    }

    fn unlink(&mut self, name: &ObjectName, object: &dyn Object) {
        if let Some(uid) = &object.metadata().uid {
            self.by_uid.remove(uid);
        }
        for owner in owner_uids(object.metadata()) {
            unindex(&mut self.by_owner, owner, name);
        }
        for (index, map) in &mut self.indexes {
            if let Some(value) = (index.of)(object) {
                unindex(map, value, name);
            }
        }
    }

    fn add_index(&mut self, index: Index) {
        if self.indexes.iter().any(|(i, _)| i.name == index.name) {
            return;
        }
        let mut map: HashMap<String, BTreeSet<ObjectName>> = HashMap::new();
        for (name, entry) in &self.entries {
            if let Some(value) = (index.of)(entry.object.as_ref()) {
                map.entry(value.into()).or_default().insert(name.clone());
            }
        }
        self.indexes.push((index, map));
    }
}

fn owner_uids(meta: &ObjectMeta) -> impl Iterator<Item = &str> {
    meta.owner_references.iter().flatten().map(|o| o.uid.as_str())
}

fn unindex(map: &mut HashMap<String, BTreeSet<ObjectName>>, value: &str, name: &ObjectName) {
    let Some(names) = map.get_mut(value) else { return };
    names.remove(name);
    if names.is_empty() {
        map.remove(value);
    }
}

fn dependents_in<'a>(
    resource: &'a Resource,
    table: &'a Table,
    uid: &str,
) -> impl Iterator<Item = (&'a Resource, &'a Arc<dyn Object>)> + use<'a> {
    let names = table.by_owner.get(uid).into_iter().flatten();
    names.filter_map(move |n| Some((resource, &table.entries.get(n)?.object)))
}

fn cast<T: Any>(object: &Arc<dyn Object>) -> Option<&T> {
    object.as_any().downcast_ref()
}

#[cfg(test)]
mod tests;
