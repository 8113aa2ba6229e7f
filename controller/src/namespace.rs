//! Namespace: empties it before it goes (`pkg/controller/namespace/deletion`).

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Event, Namespace, NamespaceCondition, NamespaceStatus, Pod};
use reconcile::resource::name_of;
use reconcile::{
    Answer, Change, Controller, Decider, Effect, Key, Live, Object, ObjectName, Outcome, Preconditions, Propagation,
    Resource, Target, Timestamp, Told, Watch, World, conditions, merge,
};
use serde_json::json;

const NAME: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";
/// Resources whose objects are not kept, only counted at the end.
pub(crate) const UNWATCHED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];
/// Changes of these change what there is.
pub(crate) const RENEWED_BY: &[(&str, &str)] =
    &[("apiextensions.k8s.io", "customresourcedefinitions"), ("apiregistration.k8s.io", "apiservices")];

/// The namespace controller.
pub struct Namespaces;

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Namespace>(), Watch::everything(UNWATCHED, RENEWED_BY)]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(key) = change.key_of::<Namespace>() {
            return vec![key];
        }
        let Some(namespace) = change.object().and_then(|o| o.metadata().namespace.clone()) else { return Vec::new() };
        let name = ObjectName { namespace: String::new(), name: namespace };
        let deleting = world.get::<Namespace>(&name).is_some_and(|n| n.metadata.deletion_timestamp.is_some());
        if deleting { vec![Key::of::<Namespace>(name)] } else { Vec::new() }
    }
}

/// What is left in a namespace.
#[derive(Default)]
struct Left<'a> {
    objects: Vec<(&'a Resource, &'a dyn Object)>,
    /// Resources of which only a live list knew.
    unseen: Vec<(&'a Resource, usize)>,
    failed: Vec<String>,
}

impl Decider for Namespaces {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(namespace) = world.get::<Namespace>(&key.object) else {
            return Outcome::nothing("Gone", "the namespace does not exist");
        };
        let finalizers = namespace.spec.clone().unwrap_or_default().finalizers.unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|f| f == FINALIZER) {
            return Outcome::nothing("Active", "nothing to empty");
        }
        let mut left = Left { objects: kept(world, &key.object.name), ..Left::default() };
        if left.objects.is_empty() {
            // The watches know of nothing: ask the server itself, about everything it has by now.
            let missing = confirm(world, key, &mut left);
            if !missing.is_empty() {
                return Outcome { read_live: missing, ..Outcome::default() };
            }
        }
        let mut outcome = Outcome::default();
        if left.objects.is_empty() && left.unseen.is_empty() && left.failed.is_empty() {
            outcome.because("Empty", "nothing is left");
            outcome.effect(finalize(namespace, &finalizers));
            return outcome;
        }
        outcome.because("ContentRemaining", remaining(&left));
        outcome.effects = empty(&key.object.name, &left);
        let status = status(namespace, &left, now);
        let old = namespace.status.clone().unwrap_or_default();
        let patch = merge::status(namespace.metadata.resource_version.as_deref(), &old, &status);
        outcome.effects.extend(patch.map(|body| Effect::patch_status(namespace, body)));
        outcome.wake_at = Some(patience(&status, now));
        outcome
    }
}

/// What the watches know to be in a namespace.
fn kept<'a>(world: &'a World, namespace: &str) -> Vec<(&'a Resource, &'a dyn Object)> {
    let namespaced = world.resources().iter().filter(|r| r.namespaced);
    namespaced.flat_map(|r| world.objects_in(r, namespace).map(move |o| (r, o.as_ref()))).collect()
}

/// Takes the answers of live lists in; returns the questions still to ask.
fn confirm<'a>(world: &'a World, key: &Key, left: &mut Left<'a>) -> Vec<Live> {
    match world.live(NAME, key, &Live::Resources) {
        None => return vec![Live::Resources],
        Some(Answer::Failed(message)) => left.failed.push(message.clone()),
        Some(_) => {}
    }
    let mut missing = Vec::new();
    for resource in world.resources().iter().filter(|r| r.namespaced) {
        let question = Live::List(resource.clone(), key.object.name.clone());
        match world.live(NAME, key, &question) {
            None => missing.push(question),
            Some(Answer::List(list)) if !list.is_empty() => left.unseen.push((resource, list.len())),
            Some(Answer::Failed(message)) => left.failed.push(format!("{resource}: {message}")),
            Some(_) => {}
        }
    }
    missing
}

/// Pods go first: what they hold on to goes when they are gone.
fn empty(namespace: &str, left: &Left<'_>) -> Vec<Effect> {
    let pods = Resource::of::<Pod>();
    let events = Resource::of::<Event>();
    let waits = left.objects.iter().any(|(r, _)| **r == pods);
    let due = left.objects.iter().filter(|(r, _)| !waits || **r == pods);
    let undeleted = due.filter(|(_, o)| o.metadata().deletion_timestamp.is_none());
    let mut effects: Vec<Effect> = undeleted.map(|(r, o)| delete(r, *o)).collect();
    let unseen = left.unseen.iter().filter(|(r, _)| r.group != "events.k8s.io" || events.plural != r.plural);
    effects
        .extend(unseen.map(|(r, _)| Effect::DeleteCollection { resource: (*r).clone(), namespace: namespace.into() }));
    effects
}

fn delete(resource: &Resource, object: &dyn Object) -> Effect {
    let meta = object.metadata();
    Effect::Delete {
        target: Target { resource: resource.clone(), object: name_of(meta) },
        preconditions: Preconditions { uid: meta.uid.clone(), resource_version: None },
        propagation: Some(Propagation::Background),
        grace_seconds: None,
        told: Told::default(),
    }
}

fn finalize(namespace: &Namespace, finalizers: &[String]) -> Effect {
    let rest: Vec<&String> = finalizers.iter().filter(|f| *f != FINALIZER).collect();
    let meta = &namespace.metadata;
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version},
        "spec": {"finalizers": rest},
    });
    Effect::Update { target: Target::of(namespace), subresource: "finalize", object, told: Told::default() }
}

/// Resources and how many objects of each are left, in upstream's words.
fn remaining(left: &Left<'_>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (resource, _) in &left.objects {
        *counts.entry(format!("{}.{}", resource.plural, resource.group)).or_default() += 1;
    }
    counts.extend(left.unseen.iter().map(|(r, n)| (format!("{}.{}", r.plural, r.group), *n)));
    let texts: Vec<String> = counts.iter().map(|(r, n)| format!("{r} has {n} resource instances")).collect();
    format!("Some resources are remaining: {}", texts.join(", "))
}

fn by_finalizer(left: &Left<'_>) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in left.objects.iter().flat_map(|(_, o)| o.metadata().finalizers.iter().flatten()) {
        *counts.entry(finalizer).or_default() += 1;
    }
    let texts: Vec<String> = counts.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let text = || format!("Some content in the namespace has finalizers remaining: {}", texts.join(", "));
    (!texts.is_empty()).then(text)
}

const DISCOVERY: (&str, &str, &str) =
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered");
const PARSING: (&str, &str, &str) =
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed");
const DELETION: (&str, &str, &str) = (
    "NamespaceDeletionContentFailure",
    "ContentDeleted",
    "All content successfully deleted, may be waiting on finalization",
);
const CONTENT: (&str, &str, &str) = ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed");
const HELD: (&str, &str, &str) =
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished");

fn status(namespace: &Namespace, left: &Left<'_>, now: Timestamp) -> NamespaceStatus {
    let mut status = namespace.status.clone().unwrap_or_default();
    let failed = (!left.failed.is_empty()).then(|| left.failed.join(", "));
    let list = status.conditions.get_or_insert_default();
    condition(list, DISCOVERY, failed.map(|m| ("DiscoveryFailed", m)), now);
    condition(list, PARSING, None, now);
    condition(list, DELETION, None, now);
    condition(list, CONTENT, Some(("SomeResourcesRemain", remaining(left))), now);
    condition(list, HELD, by_finalizer(left).map(|m| ("SomeFinalizersRemain", m)), now);
    status
}

/// Sets a condition to its bad form, or to its good one where there is none.
fn condition(
    list: &mut Vec<NamespaceCondition>,
    (type_, good, text): (&str, &str, &str),
    bad: Option<(&str, String)>,
    now: Timestamp,
) {
    let is = if bad.is_some() { "True" } else { "False" };
    let (reason, message) = bad.unwrap_or((good, text.into()));
    let old = list.iter_mut().find(|c| c.type_ == type_);
    let since = old.as_ref().filter(|c| c.status == is).and_then(|c| c.last_transition_time.clone());
    let new = NamespaceCondition {
        type_: type_.into(),
        status: is.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(since.unwrap_or_else(|| conditions::time(now))),
    };
    match old {
        Some(old) => *old = new,
        None => list.push(new),
    }
}

/// When to look again: soon at first, rarely for what stays.
fn patience(status: &NamespaceStatus, now: Timestamp) -> Timestamp {
    let content = conditions::find(status.conditions.as_ref(), CONTENT.0);
    let since = content.and_then(|c| c.last_transition_time.as_ref()).map_or(now, |t| t.0);
    let waited = now.duration_since(since).as_millis().clamp(0, 60_000) / 2;
    let wait = i64::try_from(waited.clamp(200, 15_000)).unwrap_or(15_000);
    now.saturating_add(SignedDuration::from_millis(wait)).unwrap_or(now)
}
