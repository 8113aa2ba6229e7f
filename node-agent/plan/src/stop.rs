//! Ending a pod: hooks, signals, sidecars last and in reverse, then everything it had on the node.

use api::k8s_openapi::api::core::v1::Pod;

use crate::clock::{KILL_AGAIN_S, MIN_STOP_S, after_s};
use crate::decide::{Ending, Plan, wanted};
use crate::member::{Member, Role};
use crate::observed::{Hook, PodStop, Run, Stage, Stop};
use crate::pressure::EVICTED;
use crate::signal;
use crate::start::remove;
use crate::step::{Lifecycle, Step};

/// Plans the next steps of a pod that is to end.
pub(crate) fn stop(plan: &mut Plan<'_>, why: Ending) {
    let Some(stop) = &plan.seen.stop else { return begin(plan) };
    hasten(plan, stop);
    let mut busy = false;
    for member in plan.members.clone() {
        if member.role != Role::Sidecar {
            busy |= wind_down(plan, &member, stop);
        }
    }
    for member in plan.of_role(Role::Sidecar).into_iter().rev() {
        if !busy {
            busy = wind_down(plan, &member, stop);
        }
    }
    if !busy && !under_way(plan) {
        clear(plan, why);
    }
}

/// Seconds a pod is given to end: those of its deletion, else its own.
pub(crate) fn grace_of(pod: &Pod) -> i64 {
    let own = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    pod.metadata.deletion_grace_period_seconds.or(own).unwrap_or(30).max(1)
}

fn begin(plan: &mut Plan<'_>) {
    // A node in need does not wait (kubelet's hard thresholds).
    let evicted = plan.seen.verdict.as_ref().is_some_and(|verdict| verdict.reason == EVICTED);
    let grace_seconds = if evicted { 1 } else { grace_of(plan.pod) };
    plan.step(Step::StopPod { grace_seconds, deadline: after_s(plan.now, grace_seconds) });
}

/// A later, shorter grace shortens a stop that is under way.
fn hasten(plan: &mut Plan<'_>, stop: &PodStop) {
    let grace_seconds = grace_of(plan.pod);
    let deadline = after_s(plan.now, grace_seconds);
    if grace_seconds < stop.grace_seconds && deadline < stop.deadline {
        plan.step(Step::StopPod { grace_seconds, deadline });
    }
}

/// Ends one container; says whether that still goes on.
fn wind_down(plan: &mut Plan<'_>, member: &Member<'_>, stop: &PodStop) -> bool {
    let Some(run) = plan.run_of(member.name()) else { return false };
    if !run.running() {
        remove(plan, member, run);
        return !run.removed && run.sandbox == plan.seen.sandbox_attempt && plan.seen.sandbox.done().is_some();
    }
    match &run.stop {
        Some(own) => {
            let shortened = Stop { deadline: own.deadline.min(stop.deadline), ..own.clone() };
            proceed(plan, member, run, &shortened);
        }
        None => {
            let message = format!("Stopping container {}", member.name());
            let (container, run) = (member.name().into(), run.id.clone());
            plan.step(Step::StopRun { container, run, message, deadline: stop.deadline });
        }
    }
    true
}

/// The next step of a stop: hook, signal, kill, kill again.
pub(crate) fn proceed(plan: &mut Plan<'_>, member: &Member<'_>, run: &Run, stop: &Stop) {
    let hook = member.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    let over = stop.deadline <= plan.now;
    match (stop.pre_stop, hook) {
        (Hook::Pending, Some(_)) if !over && probe_begun(member, run) => {
            let (container, run) = (member.name().into(), run.id.clone());
            let deadline = Some(stop.deadline);
            plan.step(Step::RunHook { container, run, which: Lifecycle::PreStop, deadline });
        }
        (Hook::Doing, _) if !plan.due(stop.deadline) => {}
        _ => signal(plan, member, run, stop),
    }
}

/// A container whose postStart hook never ended has no use for its preStop hook.
fn probe_begun(member: &Member<'_>, run: &Run) -> bool {
    crate::probe::begun(&member.container, run)
}

fn signal(plan: &mut Plan<'_>, member: &Member<'_>, run: &Run, stop: &Stop) {
    let Some(signalled) = stop.signalled else {
        return send(plan, member, run, signal::stop_signal(&member.container, &run.image), false);
    };
    // A hook that used up the grace leaves the process a moment all the same.
    let least = if stop.pre_stop == Hook::Pending { 0 } else { MIN_STOP_S };
    let at = match stop.killed {
        None => stop.deadline.max(after_s(signalled, least)),
        Some(killed) => after_s(killed, KILL_AGAIN_S),
    };
    if plan.due(at) {
        send(plan, member, run, signal::KILL, true);
    }
}

fn send(plan: &mut Plan<'_>, member: &Member<'_>, run: &Run, signal: i32, kill: bool) {
    plan.step(Step::Signal { container: member.name().into(), run: run.id.clone(), signal, kill });
}

/// What has begun to be made is awaited before anything is torn down.
fn under_way(plan: &Plan<'_>) -> bool {
    let seen = plan.seen;
    let doing = matches!(seen.network, Stage::Doing(_)) || matches!(seen.sandbox, Stage::Doing(_));
    let writing = match &seen.volumes {
        Stage::Doing(_) => true,
        Stage::Done(volumes) => volumes.refreshing,
        Stage::Absent | Stage::Failed(_) => false,
    };
    doing || writing || seen.containers.values().any(|c| c.starting)
}

/// Nothing runs: remove what the pod had, then forget it if it is deleted.
fn clear(plan: &mut Plan<'_>, why: Ending) {
    let seen = plan.seen;
    if seen.teardown.done().is_none() {
        if wanted(plan, &seen.teardown) {
            plan.step(Step::Teardown);
        }
        return;
    }
    match why {
        Ending::Deleted if wanted(plan, &seen.forgotten) => plan.step(Step::Forget),
        Ending::Deleted => {}
        Ending::Concluded | Ending::Settled => plan.out.because("PodFinished", "the pod's containers have ended"),
    }
}
