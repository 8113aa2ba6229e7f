//! Nodes that fall silent: conditions, taints, and the eviction of pods that do not tolerate them
//! (`pkg/controller/nodelifecycle`, `pkg/controller/tainteviction`).
//!
//! Silence is measured by our own clock, from when the node's Lease was last seen to change.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use reconcile::effect::reference;
use reconcile::resource::name_of;
use reconcile::{
    Change, Controller, Decider, Effect, Key, Notice, ObjectName, Outcome, Resource, Timestamp, Told, Watch, World,
    conditions, pods,
};
use serde_json::json;

use crate::placement;

const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions whose being True keeps new pods away.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// Conditions that nobody knows any more once the node is silent.
const KUBELETS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The node lifecycle controller.
pub struct NodeLifecycle {
    /// How long a node may be silent.
    pub grace: Duration,
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn component(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Node>(), Watch::metadata::<Lease>(), Watch::of::<Pod>().indexed(&[pods::NODE_INDEX])]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let node = change.key_of::<Node>();
        let lease = change.key_of::<Lease>().filter(|k| k.object.namespace == LEASES).map(|k| node_key(&k.object.name));
        let tainted = |name: &str| {
            let node = world.get::<Node>(&node_key(name).object);
            node.is_some_and(|n| placement::taints(n).iter().any(|t| t.effect == "NoExecute"))
        };
        let pod = change.now::<Pod>().and_then(pods::node).filter(|n| tainted(n)).map(node_key);
        node.into_iter().chain(lease).chain(pod).collect()
    }
}

fn node_key(name: &str) -> Key {
    Key::of::<Node>(ObjectName { namespace: String::new(), name: name.into() })
}

impl Decider for NodeLifecycle {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(node) = world.get::<Node>(&key.object) else {
            return Outcome::nothing("Gone", "the node does not exist");
        };
        let mut outcome = Outcome::default();
        let due = heard(world, node, now).saturating_add(grace(self.grace)).unwrap_or(now);
        if due <= now && !is_unknown(node) {
            outcome.because("Silent", format!("nothing was heard for {} s", self.grace.as_secs()));
            outcome.effects = silence(node, now);
            return outcome;
        }
        if due > now && !is_unknown(node) {
            outcome.wake(due);
        }
        if is_unknown(node) {
            outcome
                .effects
                .extend(world.indexed::<Pod>(pods::BY_NODE, &key.object.name).filter_map(|p| unready(p, now)));
        }
        match retaint(node, now) {
            Some(effect) => outcome.effect(effect),
            None => evict(world, node, now, &mut outcome),
        }
        outcome
    }
}

fn grace(grace: Duration) -> SignedDuration {
    SignedDuration::try_from(grace).unwrap_or(SignedDuration::from_secs(50))
}

/// When the node was last heard of.
fn heard(world: &World, node: &Node, now: Timestamp) -> Timestamp {
    let name = node.metadata.name.clone().unwrap_or_default();
    let lease = world.changed_at(&Resource::of::<Lease>(), &ObjectName { namespace: LEASES.into(), name });
    lease.or_else(|| world.changed_at(&Resource::of::<Node>(), &name_of(&node.metadata))).unwrap_or(now)
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    conditions::find(node.status.as_ref()?.conditions.as_ref(), type_)
}

fn is_unknown(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "Unknown")
}

/// Says of all that only the kubelet can know that it is unknown.
fn silence(node: &Node, now: Timestamp) -> Vec<Effect> {
    let at = conditions::time(now);
    let unknown = KUBELETS.iter().map(|type_| match condition(node, type_) {
        Some(old) => json!({
            "type": type_, "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastHeartbeatTime": old.last_heartbeat_time, "lastTransitionTime": at,
        }),
        None => json!({
            "type": type_, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.",
            "lastHeartbeatTime": node.metadata.creation_timestamp, "lastTransitionTime": at,
        }),
    });
    let body = json!({"status": {"conditions": unknown.collect::<Vec<_>>()}});
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let message = format!("Node {name} status is now: NodeNotReady");
    vec![Effect::strategic(node, "status", body), Effect::normal(reference(node), "NodeNotReady", message)]
}

/// A pod on a node that nobody hears of is not ready, whatever its kubelet last said.
fn unready(pod: &Pod, now: Timestamp) -> Option<Effect> {
    if !pods::is_ready(pod) {
        return None;
    }
    let body = json!({"status": {"conditions": [
        {"type": "Ready", "status": "False", "lastTransitionTime": conditions::time(now)},
    ]}});
    let message = "Node is not ready".to_owned();
    let done = Notice { about: reference(pod), warning: true, reason: "NodeNotReady".into(), message };
    Some(Effect::strategic(pod, "status", body).telling(Told { done: Some(done), failed: None }))
}

/// The taints that this controller keeps, as the node's state wants them.
fn wanted(node: &Node) -> Vec<(&'static str, &'static str)> {
    let is = |type_: &str, status: &str| condition(node, type_).is_some_and(|c| c.status == status);
    let mut wanted = Vec::new();
    for (status, key) in [("False", NOT_READY), ("Unknown", UNREACHABLE)] {
        if is("Ready", status) {
            wanted.extend([(key, "NoSchedule"), (key, "NoExecute")]);
        }
    }
    wanted.extend(PRESSURES.iter().filter(|(type_, _)| is(type_, "True")).map(|(_, key)| (*key, "NoSchedule")));
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

fn is_ours(taint: &Taint) -> bool {
    let ready = taint.key == NOT_READY || taint.key == UNREACHABLE;
    let pressure = taint.key == UNSCHEDULABLE || PRESSURES.iter().any(|(_, key)| *key == taint.key);
    (ready && matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")) || (pressure && taint.effect == "NoSchedule")
}

/// A patch of the taints, if they are not as wanted. Those of others stay, and the time a taint was added too.
fn retaint(node: &Node, now: Timestamp) -> Option<Effect> {
    let wanted = wanted(node);
    let is_wanted = |t: &Taint| wanted.iter().any(|(key, effect)| t.key == *key && t.effect == *effect);
    let kept = placement::taints(node).iter().filter(|t| !is_ours(t) || is_wanted(t));
    let mut taints: Vec<Taint> = kept.cloned().collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|t| t.key == *key && t.effect == *effect) {
            let time_added = Some(conditions::time(now));
            taints.push(Taint { key: (*key).into(), effect: (*effect).into(), value: None, time_added });
        }
    }
    if taints == placement::taints(node) {
        return None;
    }
    let version = json!({"resourceVersion": node.metadata.resource_version});
    Some(Effect::patch(node, json!({"metadata": version, "spec": {"taints": taints}})))
}

/// Deletes pods whose tolerance of a NoExecute taint has run out, and wakes for the next.
fn evict(world: &World, node: &Node, now: Timestamp, outcome: &mut Outcome<Effect>) {
    let taints: Vec<&Taint> = placement::taints(node).iter().filter(|t| t.effect == "NoExecute").collect();
    if taints.is_empty() {
        return;
    }
    let seen = world.changed_at(&Resource::of::<Node>(), &name_of(&node.metadata)).unwrap_or(now);
    for pod in world.indexed::<Pod>(pods::BY_NODE, node.metadata.name.as_deref().unwrap_or_default()) {
        if pods::is_deleting(pod) {
            continue;
        }
        match eviction(pod, &taints, seen) {
            Some(due) if due <= now => outcome.effects.extend(delete(pod, now)),
            Some(due) => outcome.wake(due),
            None => {}
        }
    }
}

/// From when on a pod may no longer be on a node with these taints; `None` for never.
fn eviction(pod: &Pod, taints: &[&Taint], seen: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let due = |taint: &&Taint| {
        let matching: Vec<_> = tolerations.iter().filter(|t| placement::tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Some(Timestamp::MIN);
        }
        let seconds = matching.iter().filter_map(|t| t.toleration_seconds).min()?;
        let added = taint.time_added.as_ref().map_or(seen, |t| t.0);
        added.saturating_add(SignedDuration::from_secs(seconds.max(0))).ok()
    };
    taints.iter().filter_map(due).min()
}

fn delete(pod: &Pod, now: Timestamp) -> Vec<Effect> {
    let target = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": conditions::time(now),
    });
    let body = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [target]}});
    let message = format!("Marking for deletion Pod {}", name_of(&pod.metadata));
    let done = Notice { about: reference(pod), warning: false, reason: "TaintManagerEviction".into(), message };
    let told = Told { done: Some(done), failed: None };
    vec![Effect::strategic(pod, "status", body), Effect::delete(pod).telling(told)]
}

#[cfg(test)]
mod tests;
