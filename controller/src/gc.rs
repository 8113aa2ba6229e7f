//! Garbage collection: what no living owner holds any more (`pkg/controller/garbagecollector`).
//!
//! Nothing is deleted on the word of a watch: the object and every owner that seems gone are read again first.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use reconcile::resource::name_of;
use reconcile::{
    Answer, Change, Controller, Decider, Effect, Key, Live, Object, ObjectName, Outcome, PatchKind, Preconditions,
    Propagation, Resource, Target, Timestamp, Told, Watch, World,
};
use serde_json::{Value, json};

use crate::namespace::{RENEWED_BY, UNWATCHED};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// How long to wait for discovery to know an owner's kind.
const UNKNOWN_KIND_SECONDS: i64 = 30;

/// The garbage collector.
pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::everything(UNWATCHED, RENEWED_BY)]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let mut keys: Vec<Key> = change.key().filter(|_| concerns(change)).into_iter().collect();
        let Some(meta) = change.object().map(Object::metadata) else { return keys };
        if change.after.is_none() || waits_for_dependents(meta) {
            let uid = meta.uid.as_deref().unwrap_or_default();
            keys.extend(world.dependents(uid).into_iter().map(|(r, o)| key(r, o.metadata())));
        }
        for old in [&change.before, &change.after].into_iter().flatten() {
            keys.extend(waiting_owners(world, old.metadata()));
        }
        keys
    }

    fn workers(&self) -> usize {
        20
    }
}

fn key(resource: &Resource, meta: &ObjectMeta) -> Key {
    Key { resource: resource.clone(), object: name_of(meta) }
}

/// Whether the object itself may need something: it is there, and owned or waiting.
fn concerns(change: &Change) -> bool {
    let meta = change.after.as_deref().map(Object::metadata);
    meta.is_some_and(|m| m.owner_references.iter().flatten().next().is_some() || waits_for_dependents(m))
}

fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

fn is_foreground(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && has_finalizer(meta, FOREGROUND)
}

fn waits_for_dependents(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && (has_finalizer(meta, FOREGROUND) || has_finalizer(meta, ORPHAN))
}

/// The owners of an object that wait for it to go.
fn waiting_owners(world: &World, meta: &ObjectMeta) -> Vec<Key> {
    let find = |owner: &OwnerReference| {
        let (resource, object) = owner_in(world, owner)?;
        waits_for_dependents(object.metadata()).then(|| key(resource, object.metadata()))
    };
    meta.owner_references.iter().flatten().filter_map(find).collect()
}

/// The owner that a reference means, as the watches have it.
fn owner_in<'a>(world: &'a World, owner: &OwnerReference) -> Option<(&'a Resource, &'a dyn Object)> {
    let resource = world.resource(&owner.api_version, &owner.kind)?;
    Some((resource, world.by_uid(resource, &owner.uid)?.as_ref()))
}

impl Decider for GarbageCollector {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(object) = world.object(&key.resource, &key.object) else {
            return Outcome::nothing("Gone", "the object does not exist");
        };
        let meta = object.metadata();
        if meta.deletion_timestamp.is_some() {
            return deleting(world, key, meta);
        }
        if meta.owner_references.iter().flatten().next().is_none() {
            return Outcome::nothing("Unowned", "the object has no owners");
        }
        owned(world, key, meta, now)
    }
}

/// An object that waits: for its dependents to let go (orphan), or to be gone (foreground).
fn deleting(world: &World, key: &Key, meta: &ObjectMeta) -> Outcome<Effect> {
    let uid = meta.uid.as_deref().unwrap_or_default();
    let dependents = world.dependents(uid);
    if has_finalizer(meta, ORPHAN) {
        let mut outcome = Outcome::nothing("Orphaning", format!("{} dependents let go", dependents.len()));
        outcome.effects = dependents.iter().map(|(r, o)| without_owners(r, o.metadata(), &[uid])).collect();
        outcome.effect(without_finalizer(key, meta, ORPHAN));
        return outcome;
    }
    if !is_foreground(meta) {
        return Outcome::nothing("Deleting", "the object is being deleted");
    }
    let blocks = |m: &ObjectMeta| {
        m.owner_references.iter().flatten().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
    };
    let blocking = dependents.iter().filter(|(_, o)| blocks(o.metadata())).count();
    if blocking > 0 {
        return Outcome::nothing("Waiting", format!("{blocking} dependents are still there"));
    }
    let mut outcome = Outcome::nothing("Ready", "no dependent holds it any more");
    outcome.effect(without_finalizer(key, meta, FOREGROUND));
    outcome
}

fn without_finalizer(key: &Key, meta: &ObjectMeta, finalizer: &str) -> Effect {
    let rest: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
    merge_patch(&key.resource, meta, json!({"finalizers": rest}))
}

fn without_owners(resource: &Resource, meta: &ObjectMeta, uids: &[&str]) -> Effect {
    let rest: Vec<&OwnerReference> =
        meta.owner_references.iter().flatten().filter(|o| !uids.contains(&o.uid.as_str())).collect();
    merge_patch(resource, meta, json!({"ownerReferences": rest}))
}

/// A merge patch of metadata that fails if the object changed meanwhile.
fn merge_patch(resource: &Resource, meta: &ObjectMeta, mut change: Value) -> Effect {
    change["uid"] = json!(meta.uid);
    change["resourceVersion"] = json!(meta.resource_version);
    Effect::Patch {
        target: Target { resource: resource.clone(), object: name_of(meta) },
        subresource: "",
        kind: PatchKind::Merge,
        body: json!({ "metadata": change }),
        told: Told::default(),
    }
}

/// What an owner reference stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is there and stays.
    Solid,
    /// It is going, and waits for this object to go first.
    Waiting,
    /// There is no such object (any more).
    Absent,
    /// Nobody knows its kind now.
    Unknown,
}

fn owned(world: &World, key: &Key, meta: &ObjectMeta, now: Timestamp) -> Outcome<Effect> {
    let mut questions = Vec::new();
    let owners: Vec<(&OwnerReference, Owner)> =
        meta.owner_references.iter().flatten().map(|owner| (owner, state(world, key, owner, &mut questions))).collect();
    if !questions.is_empty() {
        questions.push(Live::Object(key.resource.clone(), key.object.clone()));
        return Outcome { read_live: questions, ..Outcome::default() };
    }
    let of = |wanted: Owner| owners.iter().filter(move |(_, s)| *s == wanted).map(|(o, _)| o.uid.as_str());
    let (solid, waiting) = (of(Owner::Solid).count(), of(Owner::Waiting).count());
    let absent: Vec<&str> = of(Owner::Absent).collect();
    if of(Owner::Unknown).next().is_some() {
        let mut outcome = Outcome::nothing("UnknownOwner", "the kind of an owner is not known");
        outcome.wake_at = Timestamp::from_second(now.as_second() + UNKNOWN_KIND_SECONDS).ok();
        return outcome;
    }
    if solid > 0 {
        let mut gone = absent;
        gone.extend(of(Owner::Waiting));
        let mut outcome = Outcome::nothing("Owned", format!("{solid} owners are there"));
        if !gone.is_empty() {
            outcome.effect(without_owners(&key.resource, meta, &gone));
        }
        return outcome;
    }
    condemned(world, key, meta, waiting > 0)
}

/// No owner stays: the object goes, after one last look at it.
fn condemned(world: &World, key: &Key, meta: &ObjectMeta, owner_waits: bool) -> Outcome<Effect> {
    let question = Live::Object(key.resource.clone(), key.object.clone());
    let live = match world.live(&question) {
        None => return Outcome { read_live: vec![question], ..Outcome::default() },
        Some(Answer::Object(Some(live))) => live.metadata(),
        Some(_) => return Outcome::nothing("Gone", "the object does not exist any more"),
    };
    if live.uid != meta.uid || live.owner_references != meta.owner_references {
        return Outcome::nothing("Changed", "the object has changed; its event is on the way");
    }
    let uid = meta.uid.as_deref().unwrap_or_default();
    let has_dependents = !world.dependents(uid).is_empty();
    let propagation = match () {
        () if owner_waits && has_dependents => Propagation::Foreground,
        () if has_finalizer(meta, ORPHAN) => Propagation::Orphan,
        () if has_finalizer(meta, FOREGROUND) => Propagation::Foreground,
        () => Propagation::Background,
    };
    let mut outcome = Outcome::nothing("NoOwner", "none of its owners is there to stay");
    outcome.effect(Effect::Delete {
        target: Target { resource: key.resource.clone(), object: key.object.clone() },
        preconditions: Preconditions { uid: meta.uid.clone(), resource_version: live.resource_version.clone() },
        propagation: Some(propagation),
        grace_seconds: None,
        told: Told::default(),
    });
    outcome
}

/// The state of one owner; an owner that the watches do not have is asked for.
fn state(world: &World, key: &Key, owner: &OwnerReference, questions: &mut Vec<Live>) -> Owner {
    let Some(resource) = world.resource(&owner.api_version, &owner.kind) else {
        if world.live(&Live::Resources).is_none() {
            questions.push(Live::Resources);
        }
        return Owner::Unknown;
    };
    let namespace = if resource.namespaced { key.object.namespace.clone() } else { String::new() };
    let name = ObjectName { namespace, name: owner.name.clone() };
    let known = world.by_uid(resource, &owner.uid).map(|o| o.metadata());
    if let Some(meta) = known.filter(|m| name_of(m) == name) {
        return if is_foreground(meta) { Owner::Waiting } else { Owner::Solid };
    }
    let question = Live::Object(resource.clone(), name);
    match world.live(&question) {
        None => {
            questions.push(question);
            Owner::Unknown
        }
        Some(Answer::Object(Some(live))) if live.metadata().uid.as_deref() == Some(&owner.uid) => {
            if is_foreground(live.metadata()) { Owner::Waiting } else { Owner::Solid }
        }
        Some(Answer::Object(_)) => Owner::Absent,
        Some(_) => Owner::Unknown,
    }
}

#[cfg(test)]
mod tests;
