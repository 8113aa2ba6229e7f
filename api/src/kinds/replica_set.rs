//! ReplicaSet.

use serde_json::Value;

use super::cell::{self, containers, count, row};
use super::workload::{at_most, counts, lasting_template, selected, selector};
use super::{Change, Rules, pod_spec, workload};
use crate::field::{Errors, Path};
use crate::tree::{fill, object};
use crate::validation::immutable;
use crate::{Document, Timestamp};

/// Rules of `apps/v1 ReplicaSet`.
pub(super) struct ReplicaSet;

impl Rules for ReplicaSet {
    fn default(&self, set: &mut Document) {
        let spec = object(set.value_mut(), "spec");
        fill(spec, "replicas", 1);
        pod_spec::template(object(spec, "template"));
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let nothing = Value::Null;
        if change.subresource == "status" {
            return validate_status(new.at("/status").unwrap_or(&nothing));
        }
        let (spec, path) = (new.at("/spec").unwrap_or(&nothing), Path::new("spec"));
        let mut errors = counts(spec, &["replicas", "minReadySeconds"], &path);
        errors.extend(selector(spec, &path, true, "deployment"));
        errors.extend(selected(spec, &path, false));
        errors.extend(lasting_template(spec, &path, "ReplicaSet"));
        if let Some(old) = change.old {
            let path = path.child("selector");
            errors.extend(immutable(new.at("/spec/selector"), old.at("/spec/selector"), &path));
        }
        errors
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        workload::warnings(new, change, "/spec/template", true)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, set: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let (names, images) = containers(set, "/spec/template/spec/containers");
        row![
            set.name(),
            count(set, "/spec/replicas"),
            count(set, "/status/replicas"),
            count(set, "/status/readyReplicas"),
            cell::age(set, now),
            names,
            images,
            cell::selector_or_none(set.at("/spec/selector")),
        ]
    }
}

fn validate_status(status: &Value) -> Errors {
    let path = Path::new("status");
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    let mut errors = counts(status, &["replicas"], &path);
    errors.extend(counts(status, &parts, &path));
    errors.extend(counts(status, &["observedGeneration", "terminatingReplicas"], &path));
    errors.extend(at_most(status, &parts, "replicas", &path, "cannot be greater than status.replicas"));
    let detail = "cannot be greater than readyReplicas";
    errors.extend(at_most(status, &["availableReplicas"], "readyReplicas", &path, detail));
    errors
}
