//! The status of a StatefulSet.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use reconcile::pods;

use super::pods::{self as own, Revisions};
use super::replicas::{self, Replicas};
use crate::podset::{count, nonzero};

/// What its pods are.
pub(super) fn of(set: &StatefulSet, revisions: &Revisions<'_>, replicas: &Replicas<'_>) -> StatefulSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let is_of = |pod: &Pod, name: &Option<String>| {
        !pods::phase(pod).is_empty() && !pods::is_deleting(pod) && own::revision(pod) == name.as_deref()
    };
    let number = |is: &dyn Fn(&Pod) -> bool| replicas.pods().filter(|pod| is(pod)).count();
    let (current, update) = (&revisions.current.metadata.name, &revisions.update.metadata.name);
    StatefulSetStatus {
        replicas: count(number(&|pod| !pods::phase(pod).is_empty())),
        ready_replicas: nonzero(number(&replicas::is_ready)),
        available_replicas: Some(count(number(&|pod| replicas::is_ready(pod) && replicas.is_available(pod)))),
        current_replicas: nonzero(number(&|pod| is_of(pod, current))),
        updated_replicas: nonzero(number(&|pod| is_of(pod, update))),
        current_revision: current.clone(),
        update_revision: update.clone(),
        collision_count: Some(old.collision_count.unwrap_or_default()),
        observed_generation: set.metadata.generation.filter(|generation| *generation != 0),
        conditions: old.conditions,
    }
}

/// When all pods are of the newest revision and ready, that is the current one.
pub(super) fn complete(set: &StatefulSet, status: &mut StatefulSetStatus) {
    let wanted = replicas::wanted(set);
    let has = |number: Option<i32>| number.unwrap_or_default() == wanted;
    if has(status.updated_replicas) && has(status.ready_replicas) && status.replicas == wanted {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
}
