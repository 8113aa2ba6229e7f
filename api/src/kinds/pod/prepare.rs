//! What the server sets on pods (`pkg/registry/core/pod/strategy.go`).

use serde_json::{Value, json};

use super::qos;
use crate::Document;
use crate::kinds::{Change, Operation};
use crate::tree::{get, items_mut, list, number, replace, set, text, texts};

/// Sets a new pod's phase, class and selectors, and keeps what each subresource may not change.
pub(super) fn prepare(new: &mut Document, change: &Change<'_>) {
    match (change.operation, change.subresource, change.old) {
        (Operation::Create, _, _) => create(new),
        (Operation::Update, "status", Some(old)) => status(new, old),
        (Operation::Update, "ephemeralcontainers", Some(old)) => ephemeral_containers(new, old),
        (Operation::Update, "resize", Some(old)) => resize(new, old),
        (Operation::Update, ..) => {}
    }
}

fn create(pod: &mut Document) {
    pod.set("/status", json!({"phase": "Pending"}));
    if !pod.list_at("/spec/schedulingGates").is_empty() {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": null,
        });
        pod.set("/status/conditions", json!([condition]));
    }
    let labels: Vec<(String, String)> = pod.labels().map(|(k, v)| (k.into(), v.into())).collect();
    if let Some(spec) = pod.at_mut("/spec") {
        merge_label_keys(spec, &labels);
    }
    let class = qos::class(pod);
    pod.set("/status/qosClass", class);
}

/// `matchLabelKeys` become expressions of the selector beside them.
fn merge_label_keys(spec: &mut Value, labels: &[(String, String)]) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.get_mut("affinity").and_then(|a| a.get_mut(kind)) else { continue };
        for weighted in items_mut(affinity, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                apply_label_keys(term, labels);
            }
        }
        for term in items_mut(affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
            apply_label_keys(term, labels);
        }
    }
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        apply_label_keys(constraint, labels);
    }
}

fn apply_label_keys(term: &mut Value, labels: &[(String, String)]) {
    let mut added = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in texts(term, field) {
            if let Some((_, value)) = labels.iter().find(|(k, _)| k == key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let Some(selector) = term.get_mut("labelSelector").filter(|s| s.is_object()) else { return };
    if !added.is_empty() {
        let mut all = list(selector, "matchExpressions").to_vec();
        all.append(&mut added);
        set(selector, "matchExpressions", all);
    }
}

/// The status endpoint touches no owner, keeps the class, and keeps generations that old agents do not send.
fn status(new: &mut Document, old: &Document) {
    if let Some(meta) = new.at_mut("/metadata") {
        replace(meta, "ownerReferences", old.at("/metadata/ownerReferences").cloned());
    }
    let Some(status) = new.at_mut("/status") else { return };
    let before = old.at("/status").unwrap_or(&Value::Null);
    let kept = ["qosClass", "resourceClaimStatuses", "extendedResourceClaimStatus", "observedGeneration"];
    for field in kept.iter().chain(&["nodeAllocatableResourceClaimStatuses"]) {
        if status.get(*field).is_none_or(|v| v.is_null() || v == 0) {
            replace(status, field, get(before, field).cloned());
        }
    }
    for condition in items_mut(status, "conditions") {
        let kind = text(condition, "type").to_owned();
        let earlier = list(before, "conditions").iter().find(|c| text(c, "type") == kind);
        let generation = earlier.and_then(|c| number(c, "observedGeneration"));
        if let (None | Some(0), Some(generation)) = (number(condition, "observedGeneration"), generation) {
            set(condition, "observedGeneration", generation);
        }
    }
}

fn ephemeral_containers(new: &mut Document, old: &Document) {
    let containers = new.at("/spec/ephemeralContainers").cloned();
    restore(new, old);
    if let Some(spec) = new.at_mut("/spec") {
        replace(spec, "ephemeralContainers", containers);
    }
}

/// Only resources and resize policies may change; a change of the containers themselves is left for validation to find.
fn resize(new: &mut Document, old: &Document) {
    let names = |doc: &Document, kind: &str| -> Vec<String> {
        doc.list_at(&format!("/spec/{kind}")).iter().map(|c| text(c, "name").into()).collect()
    };
    if ["containers", "initContainers"].iter().any(|kind| names(new, kind) != names(old, kind)) {
        return;
    }
    let asked = new.clone();
    restore(new, old);
    let Some(spec) = new.at_mut("/spec") else { return };
    for kind in ["containers", "initContainers"] {
        for (i, container) in items_mut(spec, kind).enumerate() {
            for field in ["resources", "resizePolicy"] {
                replace(container, field, asked.at(&format!("/spec/{kind}/{i}/{field}")).cloned());
            }
        }
    }
    if let Some(resources) = asked.at("/spec/resources") {
        set(spec, "resources", resources.clone());
    }
}

/// Takes spec, status, labels and annotations from the stored pod.
fn restore(new: &mut Document, old: &Document) {
    for pointer in ["/spec", "/status"] {
        if let Some(value) = old.at(pointer) {
            new.set(pointer, value.clone());
        }
    }
    if let Some(meta) = new.at_mut("/metadata") {
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            replace(meta, field, old.at(&format!("/metadata/{field}")).cloned());
        }
    }
}
