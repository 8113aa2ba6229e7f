//! Pod collection: pods of nodes that are gone, pods that were deleted before they had a node, and terminated pods
//! beyond a number (`pkg/controller/podgc`).

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod};
use reconcile::resource::name_of;
use reconcile::{
    Answer, Change, Controller, Decider, Effect, Key, Live, ObjectName, Outcome, Preconditions, Resource, Target,
    Timestamp, Told, Watch, World, conditions, pods,
};
use serde_json::json;

/// How long a node must be missing from a pod's life before the pod is given up.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);

const NAME: &str = "pod-garbage-collector-controller";

/// The pod garbage collector.
pub struct PodGc {
    /// How many terminated pods are kept.
    pub terminated: usize,
}

/// How soon to ask again what the server did not answer.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// The key of the decision about terminated pods.
fn terminated_key() -> Key {
    Key::of::<Pod>(ObjectName::default())
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Pod>().indexed(&[pods::NODE_INDEX]), Watch::of::<Node>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let gone = change.was::<Node>().filter(|_| change.after.is_none());
        let left = gone.and_then(|n| n.metadata.name.as_deref()).into_iter();
        let left = left.flat_map(|name| world.indexed::<Pod>(pods::BY_NODE, name));
        let mut keys: Vec<Key> = left.map(|p| Key::of::<Pod>(name_of(&p.metadata))).collect();
        let Some(pod) = change.now::<Pod>() else { return keys };
        if pods::is_terminal(pod) {
            keys.push(terminated_key());
        }
        if orphaned(world, pod) || unscheduled_and_deleting(pod) {
            keys.extend(change.key());
        }
        keys
    }
}

fn node_name(name: &str) -> ObjectName {
    ObjectName { namespace: String::new(), name: name.into() }
}

fn orphaned(world: &World, pod: &Pod) -> bool {
    pods::node(pod).is_some_and(|n| world.get::<Node>(&node_name(n)).is_none())
}

fn unscheduled_and_deleting(pod: &Pod) -> bool {
    pods::is_deleting(pod) && pods::node(pod).is_none()
}

impl Decider for PodGc {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        if *key == terminated_key() {
            return self.collect(world);
        }
        let Some(pod) = world.get::<Pod>(&key.object) else {
            return Outcome::nothing("Gone", "the pod does not exist");
        };
        if unscheduled_and_deleting(pod) {
            let mut outcome = Outcome::nothing("Unscheduled", "no kubelet will ever end this pod");
            outcome.effects = vec![kill(pod)];
            return outcome;
        }
        match pods::node(pod).filter(|_| orphaned(world, pod)) {
            Some(node) => abandon(world, key, pod, node, now),
            None => Outcome::nothing("HasNode", "the pod's node is there"),
        }
    }
}

impl PodGc {
    /// Deletes terminated pods beyond the number to keep, evicted ones first, then the oldest.
    fn collect(&self, world: &World) -> Outcome<Effect> {
        let mut ended: Vec<&Pod> =
            world.list::<Pod>().filter(|p| pods::is_terminal(p) && !pods::is_deleting(p)).collect();
        let surplus = ended.len().saturating_sub(self.terminated);
        if self.terminated == 0 || surplus == 0 {
            return Outcome::nothing("Few", format!("{} terminated pods", ended.len()));
        }
        let evicted = |p: &Pod| p.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted");
        ended.sort_by_key(|p| {
            (!evicted(p), p.metadata.creation_timestamp.clone().map(|t| t.0), p.metadata.name.clone())
        });
        let mut outcome = Outcome::nothing("Many", format!("{surplus} terminated pods too many"));
        outcome.effects = ended.into_iter().take(surplus).map(kill).collect();
        outcome
    }
}

/// Gives a pod up whose node is gone, after a while and after asking the server about the node.
fn abandon(world: &World, key: &Key, pod: &Pod, node: &str, now: Timestamp) -> Outcome<Effect> {
    let since = world.changed_at(&key.resource, &key.object).unwrap_or(now);
    let due = since.saturating_add(QUARANTINE).unwrap_or(now);
    if due > now {
        let mut outcome = Outcome::nothing("Quarantine", "the pod's node is not there; it may come back");
        outcome.wake(due);
        return outcome;
    }
    let question = Live::Object(Resource::of::<Node>(), node_name(node));
    match world.live(NAME, key, &question) {
        None => return Outcome { read_live: vec![question], ..Outcome::default() },
        Some(Answer::Object(None)) => {}
        Some(Answer::Failed(_)) => {
            let mut outcome = Outcome::nothing("Unanswered", "the server did not answer about the node");
            outcome.wake(now + AGAIN);
            return outcome;
        }
        Some(_) => return Outcome::nothing("NodeExists", "the server says that the pod's node is there"),
    }
    let mut outcome = Outcome::nothing("NodeGone", "the pod's node is gone");
    if !pods::is_terminal(pod) {
        let target = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": conditions::time(now),
        });
        let body =
            json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [target]}});
        outcome.effect(Effect::strategic(pod, "status", body));
    }
    outcome.effect(kill(pod));
    outcome
}

/// Deletes without waiting for a kubelet.
fn kill(pod: &Pod) -> Effect {
    Effect::Delete {
        target: Target::of(pod),
        preconditions: Preconditions { uid: pod.metadata.uid.clone(), resource_version: None },
        propagation: None,
        grace_seconds: Some(0),
        told: Told::default(),
    }
}
