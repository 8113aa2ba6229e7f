//! What a pod is to a controller: active, ready, available, terminating (`pkg/api/v1/pod`, `pkg/controller`).

use api::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use crate::conditions;

/// `status.phase`, empty where there is none.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Succeeded or Failed: it will never run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Deletion has been asked for.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither terminal nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(pod)
}

/// Being deleted and not yet terminal.
pub fn is_terminating(pod: &Pod) -> bool {
    is_deleting(pod) && !is_terminal(pod)
}

/// A condition of a pod.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    conditions::find(pod.status.as_ref()?.conditions.as_ref(), type_)
}

/// Its condition Ready is True.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when it has been ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// From when on it counts as available: ready for `min_ready_seconds`. `None` while it is not ready.
pub fn available_from(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    match min_ready_seconds {
        ..=0 => Some(Timestamp::MIN),
        seconds => ready_since(pod).map(|t| t.saturating_add(SignedDuration::from_secs(seconds.into())).unwrap_or(t)),
    }
}

/// Available at `now`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_from(pod, min_ready_seconds).is_some_and(|from| from <= now)
}

/// The node it is bound to.
pub fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// The name of its index by node.
pub const BY_NODE: &str = "node";

/// Pods by the node they are bound to.
pub const NODE_INDEX: crate::Index =
    crate::Index { name: BY_NODE, of: |object| object.as_any().downcast_ref::<Pod>().and_then(node) };
