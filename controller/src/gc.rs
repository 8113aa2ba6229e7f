//! Garbage collection: what no living owner holds any more (`pkg/controller/garbagecollector`).
//!
//! Nothing is deleted on the word of a watch: the object and every owner that seems gone or waiting are read again
//! first.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use reconcile::controller::names;
use reconcile::resource::{name_of, revision_of};
use reconcile::{
    Answer, Change, Controller, Decider, Effect, Key, Live, Object, ObjectName, Outcome, PatchKind, Preconditions,
    Propagation, Resource, Target, Timestamp, Told, Watch, World,
};
use serde_json::{Value, json};

use crate::namespace::{RENEWED_BY, UNWATCHED};

const NAME: &str = "garbage-collector-controller";
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// How soon to ask again what the server did not answer.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// For how long an orphaning waits for a server that does not answer about some resource.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// How long to wait for discovery to know an owner's kind.
const UNKNOWN_KIND_SECONDS: i64 = 30;

/// The garbage collector.
pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        NAME
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
            return deleting(world, key, meta, now);
        }
        if meta.owner_references.iter().flatten().next().is_none() {
            return Outcome::nothing("Unowned", "the object has no owners");
        }
        owned(world, key, meta, now)
    }
}

/// An object that waits: for its dependents to let go (orphan), or to be gone (foreground).
fn deleting(world: &World, key: &Key, meta: &ObjectMeta, now: Timestamp) -> Outcome<Effect> {
    if has_finalizer(meta, ORPHAN) {
        return orphan(world, key, meta, now);
    }
    if !is_foreground(meta) {
        return Outcome::nothing("Deleting", "the object is being deleted");
    }
    let uid = meta.uid.as_deref().unwrap_or_default();
    let blocks = |m: &ObjectMeta| {
        m.owner_references.iter().flatten().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
    };
    // What is in another namespace, or in none, can have no such owner, and does not hold it either.
    let reaches = |m: &ObjectMeta| meta.namespace.is_none() || m.namespace == meta.namespace;
    let holds = |m: &ObjectMeta| reaches(m) && blocks(m);
    let blocking = world.dependents(uid).iter().filter(|(_, o)| holds(o.metadata())).count();
    if blocking > 0 {
        return Outcome::nothing("Waiting", format!("{blocking} dependents are still there"));
    }
    let mut outcome = Outcome::nothing("Ready", "no dependent holds it any more");
    outcome.effect(without_finalizer(key, meta, FOREGROUND));
    outcome
}

/// Dependents let go of their owner before it may go. Of a resource whose watch has not come as far as the owner's
/// deletion the server itself is asked: a dependent that is overlooked would be collected.
fn orphan(world: &World, key: &Key, meta: &ObjectMeta, now: Timestamp) -> Outcome<Effect> {
    let uid = meta.uid.as_deref().unwrap_or_default();
    let namespace = meta.namespace.clone().unwrap_or_default();
    let late = |r: &&Resource| {
        (r.namespaced || namespace.is_empty()) && !names(UNWATCHED, r) && world.watched(r) < revision_of(meta)
    };
    let mut dependents = world.dependents(uid);
    let (mut questions, mut silent) = (Vec::new(), 0);
    for resource in world.resources().iter().filter(late) {
        let question = Live::List(resource.clone(), namespace.clone());
        match world.live(NAME, key, &question) {
            None => questions.push(question),
            Some(Answer::List(list)) => {
                dependents.retain(|(r, _)| *r != resource);
                dependents.extend(list.iter().filter(|o| refers(o.metadata(), uid)).map(|o| (resource, o)));
            }
            Some(_) => silent += 1,
        }
    }
    if !questions.is_empty() {
        return Outcome { read_live: questions, ..Outcome::default() };
    }
    let since = world.changed_at(&key.resource, &key.object).unwrap_or(now);
    if silent > 0 && now < since + PATIENCE {
        let mut outcome = Outcome::nothing("Unsure", format!("{silent} resources could not be listed"));
        outcome.wake(now + AGAIN);
        return outcome;
    }
    let mut outcome = Outcome::nothing("Orphaning", format!("{} dependents let go", dependents.len()));
    outcome.effects = dependents.iter().map(|(r, o)| without_owners(r, o.metadata(), &[uid])).collect();
    outcome.effect(without_finalizer(key, meta, ORPHAN));
    outcome
}

fn refers(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|o| o.uid == uid)
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

fn unanswered(what: &str, now: Timestamp) -> Outcome<Effect> {
    let mut outcome = Outcome::nothing("Unanswered", format!("the server did not answer about {what}"));
    outcome.wake(now + AGAIN);
    outcome
}

/// Owners no longer wait for the object; the rest follows when that is seen.
fn unblocking(resource: &Resource, meta: &ObjectMeta) -> Effect {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
    merge_patch(resource, meta, json!({ "ownerReferences": owners }))
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
    /// The server did not answer about it.
    Unanswered,
    /// It cannot be: the owner of something that is in no namespace is in none either.
    Invalid,
}

fn owned(world: &World, key: &Key, meta: &ObjectMeta, now: Timestamp) -> Outcome<Effect> {
    let mut questions = Vec::new();
    let owners: Vec<(&OwnerReference, Owner)> =
        meta.owner_references.iter().flatten().map(|owner| (owner, state(world, key, owner, &mut questions))).collect();
    if !questions.is_empty() {
        questions.push(Live::Object(key.resource.clone(), key.object.clone()));
        return Outcome { read_live: questions, ..Outcome::default() };
    }
    if owners.iter().any(|(_, state)| *state == Owner::Invalid) {
        return Outcome::nothing("InvalidOwner", "an object of the cluster cannot have an owner in a namespace");
    }
    if owners.iter().any(|(_, state)| *state == Owner::Unanswered) {
        return unanswered("an owner", now);
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
    condemned(world, key, meta, waiting > 0, now)
}

/// No owner stays: the object goes, after one last look at it.
fn condemned(world: &World, key: &Key, meta: &ObjectMeta, owner_waits: bool, now: Timestamp) -> Outcome<Effect> {
    let question = Live::Object(key.resource.clone(), key.object.clone());
    let live = match world.live(NAME, key, &question) {
        None => return Outcome { read_live: vec![question], ..Outcome::default() },
        Some(Answer::Object(Some(live))) => live.metadata(),
        Some(Answer::Object(None)) => return Outcome::nothing("Gone", "the object does not exist any more"),
        Some(_) => return unanswered("the object", now),
    };
    let told = live.deletion_timestamp.is_some() || live.owner_references != meta.owner_references;
    if live.uid != meta.uid || told {
        return Outcome::nothing("Changed", "the object has changed; its event is on the way");
    }
    let uid = meta.uid.as_deref().unwrap_or_default();
    let dependents = world.dependents(uid);
    let has_dependents = !dependents.is_empty();
    let blocks = meta.owner_references.iter().flatten().any(|o| o.block_owner_deletion == Some(true));
    if owner_waits && blocks && dependents.iter().any(|(_, o)| is_foreground(o.metadata())) {
        // Maybe a circle, in which each would wait for the next.
        let mut outcome = Outcome::nothing("Circle", "its owner and a dependent of its own wait for their dependents");
        outcome.effect(unblocking(&key.resource, meta));
        return outcome;
    }
    let propagation = match () {
        () if owner_waits && has_dependents => Propagation::Foreground,
        () if has_finalizer(live, ORPHAN) => Propagation::Orphan,
        () if has_finalizer(live, FOREGROUND) => Propagation::Foreground,
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

/// The state of one owner. One that the watches do not have is asked for, and so is one that they say waits: it may
/// have been told since to let its dependents live.
fn state(world: &World, key: &Key, owner: &OwnerReference, questions: &mut Vec<Live>) -> Owner {
    let Some(resource) = world.resource(&owner.api_version, &owner.kind) else {
        if world.live(NAME, key, &Live::Resources).is_none() {
            questions.push(Live::Resources);
        }
        return Owner::Unknown;
    };
    if resource.namespaced && !key.resource.namespaced {
        return Owner::Invalid;
    }
    let namespace = if resource.namespaced { key.object.namespace.clone() } else { String::new() };
    let name = ObjectName { namespace, name: owner.name.clone() };
    let known = world.by_uid(resource, &owner.uid).map(|o| o.metadata());
    if known.is_some_and(|m| name_of(m) == name && !is_foreground(m)) {
        return Owner::Solid;
    }
    let question = Live::Object(resource.clone(), name);
    match world.live(NAME, key, &question) {
        None => {
            questions.push(question);
            Owner::Unknown
        }
        Some(Answer::Object(Some(live))) if live.metadata().uid.as_deref() == Some(&owner.uid) => {
            if is_foreground(live.metadata()) { Owner::Waiting } else { Owner::Solid }
        }
        Some(Answer::Object(_)) => Owner::Absent,
        Some(_) => Owner::Unanswered,
    }
}

#[cfg(test)]
mod tests;
