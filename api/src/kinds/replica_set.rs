//! ReplicaSet.

use serde_json::Value;

use super::cell::{self, containers, count, row};
use super::{Rules, pod_spec};
use crate::tree::{fill, object};
use crate::{Document, Timestamp};

/// Rules of `apps/v1 ReplicaSet`.
pub(super) struct ReplicaSet;

impl Rules for ReplicaSet {
    fn default(&self, set: &mut Document) {
        let spec = object(set.value_mut(), "spec");
        fill(spec, "replicas", 1);
        pod_spec::template(object(spec, "template"));
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn selectable(&self, set: &Document) -> Vec<(&'static str, String)> {
        vec![("status.replicas", count(set, "/status/replicas").to_string())]
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
