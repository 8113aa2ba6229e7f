//! StatefulSet.

use serde_json::{Value, json};

use super::cell::{self, containers, count, row};
use super::workload::{at_most, collisions, counts, lasting_template, policy, selected, selector};
use super::{Change, Rules, pod_spec, workload};
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, get, items_mut, list, object, set, text};
use crate::validation::{dns_label, immutable};
use crate::{Document, Timestamp};

const FOREVER: &str = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                       recommended";

/// Rules of `apps/v1 StatefulSet`.
pub(super) struct StatefulSet;

impl Rules for StatefulSet {
    fn default(&self, set: &mut Document) {
        let spec = object(set.value_mut(), "spec");
        fill(spec, "podManagementPolicy", "OrderedReady");
        let strategy = object(spec, "updateStrategy");
        if text(strategy, "type").is_empty() {
            fill(strategy, "type", "RollingUpdate");
            object(strategy, "rollingUpdate");
        }
        if let Some(rolling) = strategy.get_mut("rollingUpdate").filter(|r| r.is_object()) {
            fill(rolling, "partition", 0);
            fill(rolling, "maxUnavailable", 1);
        }
        let retention = object(spec, "persistentVolumeClaimRetentionPolicy");
        fill(retention, "whenDeleted", "Retain");
        fill(retention, "whenScaled", "Retain");
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        for claim in items_mut(spec, "volumeClaimTemplates") {
            set_claim_defaults(claim);
        }
        pod_spec::template(object(spec, "template"));
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let nothing = Value::Null;
        if change.subresource == "status" {
            let old = change.old.and_then(|old| old.at("/status")).unwrap_or(&nothing);
            return validate_status(new.at("/status").unwrap_or(&nothing), old);
        }
        let path = Path::new("spec");
        let mut errors = validate_spec(new.at("/spec").unwrap_or(&nothing), &path);
        if let Some(old) = change.old {
            for field in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
                let pointer = format!("/spec/{field}");
                errors.extend(immutable(new.at(&pointer), old.at(&pointer), &path.child(field)));
            }
        }
        errors
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        let mut warnings = workload::warnings(new, change, "/spec/template", false);
        if new.i64_at("/spec/revisionHistoryLimit").is_some_and(|limit| limit < 0) {
            warnings.push(FOREVER.into());
        }
        warnings
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, set: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let (names, images) = containers(set, "/spec/template/spec/containers");
        row![
            set.name(),
            format!("{}/{}", count(set, "/status/readyReplicas"), count(set, "/spec/replicas")),
            cell::age(set, now),
            names,
            images,
        ]
    }
}

/// Templates of claims are whole claims.
fn set_claim_defaults(claim: &mut Value) {
    fill(claim, "apiVersion", "v1");
    fill(claim, "kind", "PersistentVolumeClaim");
    pod_spec::claim_spec(object(claim, "spec"));
    fill(object(claim, "status"), "phase", "Pending");
}

fn validate_spec(spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let management = text(spec, "podManagementPolicy");
    if !matches!(management, "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        errors.push(Error::invalid(path.child("podManagementPolicy"), management, detail));
    }
    let strategy = get(spec, "updateStrategy").unwrap_or(&Value::Null);
    errors.extend(update_strategy(strategy, &path.child("updateStrategy")));
    if let Some(retention) = get(spec, "persistentVolumeClaimRetentionPolicy") {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for field in ["whenDeleted", "whenScaled"] {
            errors.extend(policy(retention, field, &path, &["Retain", "Delete"]));
        }
    }
    errors.extend(counts(spec, &["replicas", "minReadySeconds"], path));
    if let Some(ordinals) = get(spec, "ordinals") {
        errors.extend(counts(ordinals, &["start"], &path.child("ordinals")));
    }
    let service = text(spec, "serviceName");
    if !service.is_empty() {
        errors.extend(dns_label(service, &path.child("serviceName")));
    }
    errors.extend(selector(spec, path, true, "statefulset"));
    errors.extend(selected(spec, path, false));
    errors.extend(lasting_template(&with_claims(spec), path, "StatefulSet"));
    errors
}

/// The spec whose template has the volumes that its pods will get from the claims.
fn with_claims(spec: &Value) -> Value {
    let mut whole = spec.clone();
    let claims = list(spec, "volumeClaimTemplates").iter().map(|claim| {
        let name = claim.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
    });
    let mut volumes: Vec<Value> = claims.collect();
    if let Some(pod) = whole.pointer_mut("/template/spec") {
        let own = list(pod, "volumes").iter().filter(|v| !volumes.iter().any(|c| c.get("name") == v.get("name")));
        volumes.extend(own.cloned().collect::<Vec<_>>());
        set(pod, "volumes", volumes);
    }
    whole
}

fn update_strategy(strategy: &Value, path: &Path) -> Errors {
    let rolling = get(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "" => vec![Error::required(path.clone(), "")],
        "OnDelete" => rolling
            .map(|r| {
                Error::invalid(
                    path.child("rollingUpdate"),
                    r.clone(),
                    "only allowed for updateStrategy 'RollingUpdate'",
                )
            })
            .into_iter()
            .collect(),
        "RollingUpdate" => {
            rolling.map_or_else(Errors::new, |r| counts(r, &["partition"], &path.child("rollingUpdate")))
        }
        _ => vec![Error::invalid(path.clone(), strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'")],
    }
}

fn validate_status(status: &Value, old: &Value) -> Errors {
    let path = Path::new("status");
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let mut errors = counts(status, &["replicas"], &path);
    errors.extend(counts(status, &parts, &path));
    errors.extend(counts(status, &["observedGeneration", "collisionCount"], &path));
    errors.extend(at_most(status, &parts, "replicas", &path, "cannot be greater than status.replicas"));
    let detail = "cannot be greater than status.readyReplicas";
    errors.extend(at_most(status, &["availableReplicas"], "readyReplicas", &path, detail));
    errors.extend(collisions(status, old, &path));
    errors
}
