//! Pods made from templates: what ReplicaSets, DaemonSets and Jobs share (`pkg/controller/controller_utils.go`).

use std::cmp::Ordering;
use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use reconcile::effect::reference;
use reconcile::resource::name_of;
use reconcile::selector::Labels;
use reconcile::{Change, Effect, Key, Kind, Notice, Resource, Timestamp, Told, World, owners, pods};
use serde_json::{Value, json};

/// The annotation that says which pods go first when a ReplicaSet shrinks.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod from a template, controlled by `owner`, its name made by the server from `prefix`.
pub(crate) fn from_template<O: Kind>(owner: &O, prefix: &str, template: &PodTemplateSpec) -> Value {
    let meta = template.metadata.clone().unwrap_or_default();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": generate_name(prefix), "namespace": owner.metadata().namespace,
            "labels": meta.labels.unwrap_or_default(), "annotations": meta.annotations.unwrap_or_default(),
            "finalizers": meta.finalizers.unwrap_or_default(), "ownerReferences": [owners::reference(owner)],
        },
        "spec": template.spec,
    })
}

/// `prefix-`, unless even that is no name.
fn generate_name(prefix: &str) -> String {
    if prefix.len() > 252 { prefix.to_owned() } else { format!("{prefix}-") }
}

/// Creates a pod, and tells the owner's Events.
pub(crate) fn create<O: Kind>(owner: &O, pod: Value) -> Effect {
    let about = reference(owner);
    let done = notice(&about, false, "SuccessfulCreate", "Created pod: {name}".into());
    let failed = notice(&about, true, "FailedCreate", "Error creating: {error}".into());
    let namespace = owner.metadata().namespace.as_deref().unwrap_or_default();
    Effect::create::<Pod>(namespace, pod).telling(Told { done: Some(done), failed: Some(failed) })
}

/// Deletes a pod, and tells the owner's Events.
pub(crate) fn delete<O: Kind>(owner: &O, pod: &Pod) -> Effect {
    let about = reference(owner);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let done = notice(&about, false, "SuccessfulDelete", format!("Deleted pod: {name}"));
    let failed = notice(&about, true, "FailedDelete", "Error deleting: {error}".into());
    Effect::delete(pod).telling(Told { done: Some(done), failed: Some(failed) })
}

fn notice(about: &k8s_openapi::api::core::v1::ObjectReference, warning: bool, reason: &str, message: String) -> Notice {
    Notice { about: about.clone(), warning, reason: reason.into(), message }
}

/// The owners of kind `O` that a change of a pod concerns: its controller before and after, or, for an orphan, all
/// that select its labels.
pub(crate) fn touched<O: Kind>(
    change: &Change,
    world: &World,
    selects: impl Fn(&O, Option<&Labels>) -> bool,
) -> Vec<Key> {
    let own = change.key_of::<O>();
    let by_pod = change.both::<Pod>().filter_map(|pod| owners::controller_key::<O>(&pod.metadata));
    let mut keys: Vec<Key> = own.into_iter().chain(by_pod).collect();
    if let Some(orphan) = change.now::<Pod>().filter(|pod| owners::controller(&pod.metadata).is_none()) {
        let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
        let found = world.in_namespace::<O>(namespace).filter(|o| selects(o, orphan.metadata.labels.as_ref()));
        keys.extend(found.map(|o| Key::of::<O>(name_of(o.metadata()))));
    }
    keys
}

/// Whether a key is of a kind, so that a decider can skip others.
pub(crate) fn is<O: Kind>(key: &Key) -> bool {
    key.resource == Resource::of::<O>()
}

/// Sorts pods so that those to delete first come first. `related` are all active pods of the same set, and of sets
/// with the same owner: a pod beside many of them goes earlier.
pub(crate) fn by_deletion_order<'a>(mut pods: Vec<&'a Pod>, related: &[&Pod], now: Timestamp) -> Vec<&'a Pod> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| pods::is_active(p)) {
        *on_node.entry(pods::node(pod).unwrap_or_default()).or_default() += 1;
    }
    let rank = |pod: &Pod| on_node.get(pods::node(pod).unwrap_or_default()).copied().unwrap_or_default();
    pods.sort_by(|a, b| deletion_order(a, b, rank(a), rank(b), now));
    pods
}

/// Upstream's order, made total: it looks at restarts only where two pods became ready at the very same time, and else
/// lets the uid decide, so that three pods can go around in a circle.
fn deletion_order(a: &Pod, b: &Pod, rank_a: usize, rank_b: usize, now: Timestamp) -> Ordering {
    let assigned = pods::node(a).is_some().cmp(&pods::node(b).is_some());
    assigned
        .then_with(|| phase_order(a).cmp(&phase_order(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| age(pods::ready_since(a), now).cmp(&age(pods::ready_since(b), now)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| age(created(a), now).cmp(&age(created(b), now)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn phase_order(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

fn cost(pod: &Pod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST));
    text.and_then(|t| t.parse().ok()).unwrap_or_default()
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|c| c.restart_count).max().unwrap_or_default()
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

/// A power of two that a time is past, in nanoseconds: the younger first, but not always the very youngest. What never
/// was comes before all.
fn age(since: Option<Timestamp>, now: Timestamp) -> Option<u32> {
    let passed = u64::try_from(now.duration_since(since?).as_nanos().max(0)).unwrap_or(u64::MAX);
    Some(passed.checked_ilog2().map_or(0, |log| log + 1))
}

/// `n`, or nothing for zero: how Go writes counts that are `omitempty`.
pub(crate) fn nonzero(n: usize) -> Option<i32> {
    Some(count(n)).filter(|n| *n != 0)
}

/// A count as Kubernetes has it.
pub(crate) fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::by_deletion_order;

    /// Ready at two moments, made at many, uids in no order: a sort that finds no total order panics.
    #[test]
    fn many_pods_that_became_ready_together_have_an_order() {
        let pod = |n: u64| -> Pod {
            let ready = json!({"type": "Ready", "status": "True",
                               "lastTransitionTime": format!("2026-01-01T00:00:{:02}Z", 30 + n % 3)});
            let metadata = json!({"name": format!("p{n}"), "uid": format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                                  "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", n * 7 % 30)});
            let status = json!({"phase": "Running", "conditions": [ready]});
            serde_json::from_value(
                json!({"metadata": metadata, "spec": {"nodeName": "n", "containers": []}, "status": status}),
            )
            .unwrap()
        };
        let pods: Vec<Pod> = (0..200).map(pod).collect();
        let all: Vec<&Pod> = pods.iter().collect();
        let now = "2026-01-01T00:00:34Z".parse().unwrap();
        let sorted = by_deletion_order(all.clone(), &all, now);
        let reversed = by_deletion_order(all.iter().rev().copied().collect(), &all, now);
        assert_eq!(sorted, reversed);
    }
}
