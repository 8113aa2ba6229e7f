//! What a decision asks of the API server.

use api::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition};
use reconcile::{Effect, Notice, PatchKind, Resource, Target, Told, pods};
use serde_json::json;

use crate::Wanted;

/// An Event's message has at most so many bytes (`NoteLengthLimit`).
const MAX_NOTE_BYTES: usize = 1024;

fn target(pod: &Wanted) -> Target {
    Target { resource: Resource::of::<Pod>(), object: pod.name.clone() }
}

fn about(pod: &Wanted) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.name.namespace.clone()),
        name: Some(pod.name.name.clone()),
        uid: Some(pod.footprint.uid.clone()),
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

/// Says on the pod and in an Event why it is not placed.
pub(crate) fn unschedulable(pod: &Wanted, was: Option<&PodCondition>, why: &str, now: Timestamp) -> Vec<Effect> {
    let mut effects = vec![Effect::warning(about(pod), "FailedScheduling", truncate(why))];
    let same = |c: &&PodCondition| {
        c.status == "False" && c.reason.as_deref() == Some("Unschedulable") && c.message.as_deref() == Some(why)
    };
    if was.filter(same).is_none() {
        effects.push(condition(pod, was, why, now));
    }
    effects
}

fn condition(pod: &Wanted, was: Option<&PodCondition>, why: &str, now: Timestamp) -> Effect {
    let kept = was.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.as_ref());
    let since = kept.map_or(now, |t| t.0).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": why,
        "lastProbeTime": null,
        "lastTransitionTime": since,
    });
    if let (Some(generation), Some(fields)) = (pod.generation, condition.as_object_mut()) {
        fields.insert("observedGeneration".to_owned(), generation.into());
    }
    Effect::Patch {
        target: target(pod),
        subresource: "status",
        kind: PatchKind::Strategic,
        body: json!({"metadata": {"uid": pod.footprint.uid}, "status": {"conditions": [condition]}}),
        told: Told::default(),
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
