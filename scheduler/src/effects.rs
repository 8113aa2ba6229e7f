//! What a decision asks of the API server.

use std::sync::Arc;

use api::{ObjectName, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition};
use reconcile::{Effect, Notice, PatchKind, Preconditions, Resource, Target, Told, pods};
use serde_json::{Value, json};

use crate::{Footprint, Victims, Wanted};

/// An Event's message has at most so many bytes (`NoteLengthLimit`).
const MAX_NOTE_BYTES: usize = 1024;

fn target(pod: &Wanted) -> Target {
    Target { resource: Resource::of::<Pod>(), object: pod.name.clone() }
}

fn about(pod: &Wanted) -> ObjectReference {
    reference(&pod.footprint)
}

fn reference(pod: &Footprint) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

/// Binds the pod to a node. The uid makes sure that it is not another pod of the same name by then.
pub(crate) fn bind(pod: &Wanted, node: &str) -> Effect {
    let object = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": pod.name.namespace, "name": pod.name.name, "uid": pod.footprint.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let message = format!("Successfully assigned {}/{} to {node}", pod.name.namespace, pod.name.name);
    let done = Notice { about: about(pod), warning: false, reason: "Scheduled".to_owned(), message };
    let failed = Notice {
        about: about(pod),
        warning: true,
        reason: "FailedScheduling".to_owned(),
        message: "binding rejected: {error}".to_owned(),
    };
    Effect::Post {
        target: target(pod),
        subresource: "binding",
        object,
        told: Told { done: Some(done), failed: Some(failed) },
    }
}

/// Says on the pod and in an Event why it is not placed, and where it is expected if that is another node than before.
pub(crate) fn unschedulable(
    pod: &Wanted,
    was: Option<&PodCondition>,
    why: &str,
    nominated: Option<Option<&str>>,
    now: Timestamp,
) -> Vec<Effect> {
    let mut effects = vec![Effect::warning(about(pod), "FailedScheduling", truncate(why))];
    let mut status = serde_json::Map::new();
    let same = |c: &&PodCondition| {
        c.status == "False" && c.reason.as_deref() == Some("Unschedulable") && c.message.as_deref() == Some(why)
    };
    if was.filter(same).is_none() {
        status.insert("conditions".to_owned(), json!([unschedulable_condition(pod, was, why, now)]));
    }
    if let Some(node) = nominated {
        status.insert("nominatedNodeName".to_owned(), json!(node));
    }
    if !status.is_empty() {
        effects.push(patch_status(&pod.footprint, Value::Object(status)));
    }
    effects
}

fn unschedulable_condition(pod: &Wanted, was: Option<&PodCondition>, why: &str, now: Timestamp) -> Value {
    let kept = was.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.as_ref());
    let mut condition = condition("PodScheduled", "False", "Unschedulable", why, kept.map_or(now, |t| t.0));
    condition["lastProbeTime"] = Value::Null;
    observed(condition, pod.footprint.generation)
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, since: Timestamp) -> Value {
    let since = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
}

fn observed(mut condition: Value, generation: Option<i64>) -> Value {
    if let (Some(generation), Some(fields)) = (generation, condition.as_object_mut()) {
        fields.insert("observedGeneration".to_owned(), generation.into());
    }
    condition
}

fn patch_status(pod: &Footprint, status: Value) -> Effect {
    let object = ObjectName { namespace: pod.namespace.clone(), name: pod.name.clone() };
    Effect::Patch {
        target: Target { resource: Resource::of::<Pod>(), object },
        subresource: "status",
        kind: PatchKind::Strategic,
        body: json!({"metadata": {"uid": pod.uid}, "status": status}),
        told: Told::default(),
    }
}

/// A pod that is expected on a node which another one takes is expected there no longer.
pub(crate) fn denominate(pod: &Footprint) -> Effect {
    patch_status(pod, json!({"nominatedNodeName": null}))
}

/// Takes pods away so that `pod` finds room: each is told why, then deleted with its own grace.
pub(crate) fn evict(pod: &Wanted, victims: &Victims, now: Timestamp) -> Vec<Effect> {
    let alive = || victims.pods.iter().filter(|victim| !victim.terminating);
    let why = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler);
    let tell = |victim: &Arc<Footprint>| {
        let condition = condition("DisruptionTarget", "True", "PreemptionByScheduler", &why, now);
        patch_status(victim, json!({"conditions": [observed(condition, victim.generation)]}))
    };
    let told: Vec<Effect> = alive().map(tell).collect();
    told.into_iter().chain(alive().map(|victim| delete(pod, victim, &victims.node))).collect()
}

fn delete(pod: &Wanted, victim: &Footprint, node: &str) -> Effect {
    let message = format!("Preempted by pod {} on node {node}", pod.footprint.uid);
    let done = Notice { about: reference(victim), warning: false, reason: "Preempted".to_owned(), message };
    let object = ObjectName { namespace: victim.namespace.clone(), name: victim.name.clone() };
    Effect::Delete {
        target: Target { resource: Resource::of::<Pod>(), object },
        preconditions: Preconditions { uid: Some(victim.uid.clone()), resource_version: None },
        propagation: None,
        grace_seconds: None,
        told: Told { done: Some(done), failed: None },
    }
}

/// The condition that [`unschedulable`] replaces.
pub(crate) fn scheduled_condition(pod: &Pod) -> Option<&PodCondition> {
    pods::condition(pod, "PodScheduled")
}

fn truncate(message: &str) -> String {
    const DOTS: &str = " ...";
    if message.len() <= MAX_NOTE_BYTES {
        return message.to_owned();
    }
    let mut end = MAX_NOTE_BYTES - DOTS.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{DOTS}", message.get(..end).unwrap_or_default())
}
