//! Other resources for a container that runs (KEP-1287): cgroups are changed in place, unless the container's policy wants
//! a restart.

use api::Timestamp;
use api::k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use crate::clock::after_s;
use crate::decide::Plan;
use crate::member::{Member, Role, member};
use crate::observed::{Failure, Hook, Observed, Resize, Run, Seen, Stop};
use crate::qos::milli;
use crate::step::{Note, ResizeFailure, Step};

/// Seconds until a resize that was refused is tried again.
const RETRY_S: i64 = 30;
/// What can be changed.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Asks for a resize where the pod wants other resources than the run has.
pub(crate) fn resize(plan: &mut Plan<'_>, member: &Member<'_>, run: &Run) {
    let Some(seen) = plan.seen_of(member.name()).filter(|_| matches!(member.role, Role::Main | Role::Sidecar)) else {
        return;
    };
    if !wanted(seen, &member.container) {
        return;
    }
    let wanted = member.container.resources.clone().unwrap_or_default();
    let due = match &seen.resize {
        Resize::Doing => false,
        Resize::Refused { wanted: refused, failure } if *refused == wanted => plan.due(after_s(failure.at, RETRY_S)),
        Resize::Settled | Resize::Refused { .. } => true,
    };
    if due {
        let (container, run) = (member.name().into(), run.id.clone());
        plan.step(Step::Resize { container, run, resources: Box::new(wanted) });
    }
}

/// Whether a container is to have other resources than its run was given.
pub(crate) fn wanted(seen: &Seen, container: &Container) -> bool {
    let wanted = container.resources.clone().unwrap_or_default();
    seen.resources.as_ref().is_some_and(|given| changed(given, &wanted).next().is_some())
}

/// The resources in which two lists of requests and limits differ.
fn changed<'a>(a: &'a ResourceRequirements, b: &'a ResourceRequirements) -> impl Iterator<Item = &'static str> + 'a {
    let differs = |name: &&str| {
        milli(&a.requests, name) != milli(&b.requests, name) || milli(&a.limits, name) != milli(&b.limits, name)
    };
    RESOURCES.into_iter().filter(differs)
}

/// Takes in what became of a resize.
pub(crate) fn learn(
    pod: &Pod,
    seen: &mut Observed,
    (container, run): (&str, &str),
    resources: ResourceRequirements,
    result: Result<(), ResizeFailure>,
    now: Timestamp,
) -> Vec<Note> {
    let Some(entry) = seen.containers.get_mut(container) else { return Vec::new() };
    if let Err(ResizeFailure { reason, message }) = result {
        let count = if let Resize::Refused { failure, .. } = &entry.resize { failure.count + 1 } else { 1 };
        let failure = Failure { reason: reason.into(), message, at: now, count };
        entry.resize = Resize::Refused { wanted: resources, failure };
        return Vec::new();
    }
    entry.resize = Resize::Settled;
    let before = entry.resources.replace(resources.clone()).unwrap_or_default();
    let Some(member) = member(pod, container) else { return Vec::new() };
    if !changed(&before, &resources).any(|name| restarts(&member.container, name)) {
        return Vec::new();
    }
    let Some(run) = seen.run_mut(container, run).filter(|run| run.running() && run.stop.is_none()) else {
        return Vec::new();
    };
    let message = format!("Container {container} resize requires restart");
    let deadline = after_s(now, crate::stop::grace_of(pod));
    run.stop =
        Some(Stop { message: message.clone(), deadline, pre_stop: Hook::Pending, signalled: None, killed: None });
    vec![Note::normal(container, "Killing", message)]
}

fn restarts(container: &Container, name: &str) -> bool {
    let policies = container.resize_policy.iter().flatten();
    policies.into_iter().any(|p| p.resource_name == name && p.restart_policy == "RestartContainer")
}
