//! A Deployment's status: counts, Available, Progressing, ReplicaFailure.

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetCondition};
use reconcile::{Timestamp, conditions};

use super::rollout::{Plan, max_unavailable, wanted};
use super::sets::Set;

pub(super) const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const AVAILABLE: &str = "NewReplicaSetAvailable";

/// Puts a condition into a status.
pub(super) fn set(status: &mut DeploymentStatus, type_: &str, is: &str, reason: &str, message: &str, now: Timestamp) {
    let new = DeploymentCondition {
        type_: Some(type_.into()),
        status: Some(is.into()),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(conditions::time(now)),
        last_transition_time: Some(conditions::time(now)),
    };
    conditions::set(status.conditions.get_or_insert_default(), new);
}

/// Whether progress is watched at all.
pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    deadline_seconds(deployment).is_some()
}

fn deadline_seconds(deployment: &Deployment) -> Option<i32> {
    deployment.spec.progress_deadline_seconds.filter(|s| *s != i32::MAX)
}

fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    conditions::find(status.conditions.as_ref(), PROGRESSING)
}

fn progress_reason(status: &DeploymentStatus) -> &str {
    progressing(status).and_then(|c| c.reason.as_deref()).unwrap_or_default()
}

/// Marks a pause, and its end, so that the time paused does not count as lack of progress.
pub(super) fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    let paused = deployment.spec.paused.unwrap_or_default();
    let reason = progress_reason(status);
    if !has_deadline(deployment) || reason == TIMED_OUT {
        return;
    }
    match (paused, reason == "DeploymentPaused") {
        (true, false) => set(status, PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused", now),
        (false, true) => set(status, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now),
        _ => {}
    }
}

/// The status as the ReplicaSets' statuses make it.
pub(super) fn calculate(plan: &Plan<'_>) -> DeploymentStatus {
    let some = |n: i32| Some(n).filter(|n| *n != 0);
    let available = plan.sets.sum(|s| s.available_replicas.unwrap_or_default());
    let updated = plan.sets.new_set().and_then(|s| s.rs.status.as_ref()).map_or(0, |s| s.replicas);
    let mut status = DeploymentStatus {
        observed_generation: plan.deployment.metadata.generation.filter(|g| *g != 0),
        replicas: some(plan.sets.sum(|s| s.replicas)),
        updated_replicas: some(updated),
        ready_replicas: some(plan.sets.sum(|s| s.ready_replicas.unwrap_or_default())),
        available_replicas: some(available),
        unavailable_replicas: some((plan.sets.replicas() - available).max(0)),
        terminating_replicas: terminating(plan),
        collision_count: plan.status.collision_count,
        conditions: plan.status.conditions.clone(),
    };
    match available >= wanted(plan.deployment) - max_unavailable(plan.deployment) {
        true => {
            let message = "Deployment has minimum availability.";
            set(&mut status, "Available", "True", "MinimumReplicasAvailable", message, plan.now);
        }
        false => {
            let message = "Deployment does not have minimum availability.";
            set(&mut status, "Available", "False", "MinimumReplicasUnavailable", message, plan.now);
        }
    }
    status
}

/// Known only if every ReplicaSet says it.
fn terminating(plan: &Plan<'_>) -> Option<i32> {
    let each = plan.sets.all.iter().map(|s| s.rs.status.as_ref().and_then(|s| s.terminating_replicas));
    each.sum()
}

/// Everything wanted is updated and available, and nothing else is left.
pub(super) fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    let is = |n: Option<i32>| n.unwrap_or_default() == wanted;
    is(status.updated_replicas)
        && is(status.replicas)
        && is(status.available_replicas)
        && status.observed_generation.unwrap_or_default() >= deployment.metadata.generation.unwrap_or_default()
}

fn progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |n: Option<i32>| n.unwrap_or_default();
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// When the current lack of progress becomes a failure.
fn due(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let from = progressing(status)?.last_update_time.as_ref()?.0;
    from.saturating_add(SignedDuration::from_secs(deadline_seconds(deployment)?.into())).ok()
}

/// When to look again for lack of progress.
pub(super) fn deadline(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Timestamp> {
    if complete(deployment, status) || matches!(progress_reason(status), TIMED_OUT | AVAILABLE) {
        return None;
    }
    let second = SignedDuration::from_secs(1);
    due(deployment, status)?.max(now).saturating_add(second).ok()
}

/// The status during a rollout: with progress and the ReplicaSets' failures.
pub(super) fn rollout(plan: &Plan<'_>) -> DeploymentStatus {
    let mut status = calculate(plan);
    let old = &plan.status;
    let done = status.replicas == status.updated_replicas && progress_reason(old) == AVAILABLE;
    match has_deadline(plan.deployment) {
        false => conditions::remove(status.conditions.get_or_insert_default(), PROGRESSING),
        true if !done => note_progress(plan, &mut status),
        true => {}
    }
    let list = status.conditions.get_or_insert_default();
    match failure(plan) {
        Some(failed) => conditions::set(list, failed),
        None => conditions::remove(list, FAILURE),
    }
    status
}

fn note_progress(plan: &Plan<'_>, status: &mut DeploymentStatus) {
    let subject = match plan.sets.new_set() {
        Some(set) => format!("ReplicaSet {:?}", set.name()),
        None => format!("Deployment {:?}", plan.deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let old = progressing(&plan.status).cloned();
    if complete(plan.deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(status, PROGRESSING, "True", AVAILABLE, &message, plan.now);
    } else if progressed(&plan.original, status) {
        // Also with the same reason: the time of the last update is what the deadline counts from.
        let list = status.conditions.get_or_insert_default();
        conditions::remove(list, PROGRESSING);
        set(status, PROGRESSING, "True", "ReplicaSetUpdated", &format!("{subject} is progressing."), plan.now);
        if let (Some(old), Some(new)) = (old.filter(|c| c.status.as_deref() == Some("True")), last(status)) {
            new.last_transition_time = old.last_transition_time;
        }
    } else if timed_out(plan, status) {
        set(status, PROGRESSING, "False", TIMED_OUT, &format!("{subject} has timed out progressing."), plan.now);
    }
}

fn last(status: &mut DeploymentStatus) -> Option<&mut DeploymentCondition> {
    status.conditions.as_mut()?.last_mut()
}

fn timed_out(plan: &Plan<'_>, status: &DeploymentStatus) -> bool {
    match progress_reason(status) {
        AVAILABLE => false,
        TIMED_OUT => true,
        _ => due(plan.deployment, status).is_some_and(|due| due < plan.now),
    }
}

fn failure(plan: &Plan<'_>) -> Option<DeploymentCondition> {
    let of = |set: &Set<'_>| {
        let list = set.rs.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions::find(list, FAILURE).cloned()
    };
    plan.sets.new_set().and_then(of).or_else(|| plan.sets.all.iter().find_map(of)).map(from_replica_set)
}

fn from_replica_set(c: ReplicaSetCondition) -> DeploymentCondition {
    DeploymentCondition {
        type_: c.type_,
        status: c.status,
        last_update_time: c.last_transition_time.clone(),
        last_transition_time: c.last_transition_time,
        reason: c.reason,
        message: c.message,
    }
}
