//! Deployment.

use serde_json::Value;

use super::cell::{self, containers, count, row};
use super::{Change, Operation, Rules, pod_spec};
use crate::tree::{fill, object, text};
use crate::{Document, Timestamp, validation};

/// Rules of `apps/v1 Deployment`.
pub(super) struct Deployment;

impl Rules for Deployment {
    fn default(&self, deployment: &mut Document) {
        let spec = object(deployment.value_mut(), "spec");
        fill(spec, "replicas", 1);
        let strategy = object(spec, "strategy");
        fill(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "progressDeadlineSeconds", 600);
        pod_spec::template(object(spec, "template"));
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        let Some(old) = change.old.filter(|_| change.operation == Operation::Update) else { return };
        match change.subresource {
            "" => annotations_count(new, old),
            "status" => {
                let labels = old.at("/metadata/labels").cloned();
                crate::tree::replace(object(new.value_mut(), "metadata"), "labels", labels);
            }
            _ => {}
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, deployment: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let (names, images) = containers(deployment, "/spec/template/spec/containers");
        row![
            deployment.name(),
            format!("{}/{}", count(deployment, "/status/readyReplicas"), count(deployment, "/spec/replicas")),
            count(deployment, "/status/updatedReplicas"),
            count(deployment, "/status/availableReplicas"),
            cell::age(deployment, now),
            names,
            images,
            cell::selector(deployment.at("/spec/selector")),
        ]
    }
}

/// A Deployment's generation counts changes of its annotations too.
fn annotations_count(new: &mut Document, old: &Document) {
    let generation = |doc: &Document| doc.i64_at("/metadata/generation").unwrap_or_default();
    let map = |doc: &Document| doc.at("/metadata/annotations").filter(|v| v != &&serde_json::json!({})).cloned();
    let changed = !validation::same(map(new).as_ref(), map(old).as_ref());
    if changed && generation(new) == generation(old) {
        new.set("/metadata/generation", generation(old) + 1);
    }
}
