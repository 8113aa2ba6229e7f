//! Bringing a pod up and keeping it up: network, volumes, sandbox, then containers in their order.

use api::k8s_openapi::api::core::v1::Container;

use crate::clock::{BACKOFF_RESET_S, after_s, retry_at, seconds};
use crate::decide::{Plan, initialised, wanted};
use crate::member::{Member, Role, restarts, restarts_when_killed};
use crate::observed::{Hook, ImageStage, Run, Seen, Stage};
use crate::probe;
use crate::resize;
use crate::step::{Lifecycle, Note, ProbeKind, PullPolicy, Step};
use crate::stop::{grace_of, proceed};

/// Plans the next steps of a pod that is to run.
pub(crate) fn run(plan: &mut Plan<'_>) {
    if !prepared(plan) {
        return plan.out.because("PodPreparing", "network, volumes or sandbox are not there yet");
    }
    for member in plan.of_role(Role::Ephemeral) {
        if plan.run_of(member.name()).is_none() {
            start(plan, &member);
        }
    }
    if init(plan) {
        for member in plan.of_role(Role::Main) {
            keep(plan, &member);
        }
    }
    for member in plan.members.clone() {
        tend(plan, &member);
    }
}

/// Network and volumes at the same time, then the sandbox.
fn prepared(plan: &mut Plan<'_>) -> bool {
    let seen = plan.seen;
    if wanted(plan, &seen.network) {
        plan.step(Step::AttachNetwork);
    }
    refresh_volumes(plan);
    let base = seen.network.done().is_some() && seen.volumes.done().is_some();
    if base && wanted(plan, &seen.sandbox) {
        plan.step(Step::StartSandbox);
    }
    base && seen.sandbox.done().is_some()
}

fn refresh_volumes(plan: &mut Plan<'_>) {
    let seen = plan.seen;
    let due = match &seen.volumes {
        Stage::Done(volumes) if volumes.refreshing => false,
        Stage::Done(volumes) => volumes.refresh_at.is_some_and(|at| plan.due(at)),
        stage => wanted(plan, stage),
    };
    if due {
        plan.step(Step::MountVolumes);
    }
}

/// Init and sidecar containers in order; says whether the main ones may start.
fn init(plan: &mut Plan<'_>) -> bool {
    let before = initialised(plan);
    for member in plan.members.clone() {
        let done = match member.role {
            Role::Init => before || init_done(plan, &member),
            Role::Sidecar => sidecar_up(plan, &member) || before,
            Role::Main | Role::Ephemeral => true,
        };
        if !done {
            plan.out.because("PodInitializing", format!("waiting for init container {}", member.name()));
            return false;
        }
    }
    true
}

fn init_done(plan: &mut Plan<'_>, member: &Member<'_>) -> bool {
    match plan.active(member.name()) {
        Some(run) if run.running() => false,
        Some(run) if run.exit.as_ref().is_some_and(|e| e.code == 0) => true,
        _ => {
            start(plan, member);
            false
        }
    }
}

fn sidecar_up(plan: &mut Plan<'_>, member: &Member<'_>) -> bool {
    match plan.active(member.name()) {
        Some(run) if run.running() => probe::started(&member.container, run),
        _ => {
            start(plan, member);
            false
        }
    }
}

/// Starts a main container that is not there or is to be started again.
fn keep(plan: &mut Plan<'_>, member: &Member<'_>) {
    let again = match plan.run_of(member.name()) {
        None => true,
        Some(run) => run.exit.as_ref().is_some_and(|exit| restarts(plan.pod, member, exit.code)),
    };
    if again {
        start(plan, member);
    }
}

/// The next step towards a run: wait out the back-off, get the image, start.
fn start(plan: &mut Plan<'_>, member: &Member<'_>) {
    let fresh = Seen::default();
    let seen = plan.seen_of(member.name()).unwrap_or(&fresh);
    if seen.starting || backing_off(plan, member, seen) || failing(plan, seen) {
        return;
    }
    let attempt = seen.current.as_ref().map_or(0, |run| run.attempt + 1);
    match &seen.image {
        ImageStage::Pulling(_) => {}
        ImageStage::Ready { attempt: of, .. } if *of == attempt => {
            let resources = Box::new(member.container.resources.clone().unwrap_or_default());
            plan.step(Step::StartContainer { container: member.name().into(), attempt, resources });
        }
        ImageStage::Failed { failure, delay_s, told } => {
            let at = after_s(failure.at, *delay_s);
            if plan.due(at) {
                pull(plan, member, attempt);
            } else if !told && plan.due(after_s(failure.at, (*delay_s / 4).max(1))) {
                tell_pull_backoff(plan, member);
            }
        }
        ImageStage::Ready { .. } | ImageStage::Absent => pull(plan, member, attempt),
    }
}

/// Whether the container waits because the run before ended too soon.
fn backing_off(plan: &mut Plan<'_>, member: &Member<'_>, seen: &Seen) -> bool {
    let Some((exit, backoff)) = seen.backing_off() else { return false };
    let expired = seconds(backoff.updated, exit.finished_at) > BACKOFF_RESET_S;
    if expired || plan.due(after_s(exit.finished_at, backoff.delay_s)) {
        return false;
    }
    if !backoff.told {
        let message = format!("Back-off restarting failed container {} in pod {}", member.name(), pod_text(plan));
        let note = Note::warning(member.name(), "BackOff", message);
        plan.step(Step::TellBackoff { container: member.name().into(), note });
    }
    plan.out.because("CrashLoopBackOff", format!("container {} waits {} s", member.name(), backoff.delay_s));
    true
}

/// `name_namespace(uid)`, as upstream writes a pod in messages.
pub(crate) fn pod_text(plan: &Plan<'_>) -> String {
    crate::status::pod_text(plan.pod)
}

fn failing(plan: &mut Plan<'_>, seen: &Seen) -> bool {
    let at = seen.failure.as_ref().filter(|f| f.reason != "RunContainerError").map(|f| retry_at(f.at, f.count));
    at.is_some_and(|at| !plan.due(at))
}

fn pull(plan: &mut Plan<'_>, member: &Member<'_>, attempt: u32) {
    let image = member.container.image.clone().unwrap_or_default();
    let policy = pull_policy(&member.container);
    plan.step(Step::PullImage { container: member.name().into(), attempt, image, policy });
}

/// The API server defaults the policy; `Always` for an image without a tag is its rule.
fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    }
}

fn tell_pull_backoff(plan: &mut Plan<'_>, member: &Member<'_>) {
    let image = member.container.image.as_deref().unwrap_or_default();
    let note = Note::normal(member.name(), "BackOff", format!("Back-off pulling image \"{image}\""));
    plan.step(Step::TellBackoff { container: member.name().into(), note });
}

/// Looks after a run: a stop under way, the postStart hook, probes; removes what is left of one that has ended.
fn tend(plan: &mut Plan<'_>, member: &Member<'_>) {
    let Some(run) = plan.run_of(member.name()) else { return };
    if !run.running() {
        return remove(plan, member, run);
    }
    if let Some(stop) = &run.stop {
        return proceed(plan, member, run, stop);
    }
    if !probe::begun(&member.container, run) {
        return post_start(plan, member, run);
    }
    if run.post_start == Hook::Failed {
        return end_run(plan, member, run, "FailedPostStartHook".into(), None);
    }
    for kind in probe::KINDS {
        check(plan, member, run, kind);
    }
    resize::resize(plan, member, run);
}

/// An ended run leaves the shim at once: what is to be known of it has been noted.
pub(crate) fn remove(plan: &mut Plan<'_>, member: &Member<'_>, run: &Run) {
    if !run.removing && !run.removed && run.sandbox == plan.seen.sandbox_attempt && plan.seen.sandbox.done().is_some() {
        plan.step(Step::RemoveRun { container: member.name().into(), run: run.id.clone() });
    }
}

fn post_start(plan: &mut Plan<'_>, member: &Member<'_>, run: &Run) {
    if run.post_start == Hook::Pending {
        let (container, run) = (member.name().into(), run.id.clone());
        plan.step(Step::RunHook { container, run, which: Lifecycle::PostStart, deadline: None });
    }
}

fn check(plan: &mut Plan<'_>, member: &Member<'_>, run: &Run, kind: ProbeKind) {
    let failed = run.probes.get(kind).verdict == Some(false);
    if failed && kind != ProbeKind::Readiness {
        return probe_failed(plan, member, run, kind);
    }
    if let Some(at) = probe::due(&member.container, run, kind)
        && plan.due(at)
    {
        plan.step(Step::RunProbe { container: member.name().into(), run: run.id.clone(), which: kind });
    }
}

fn probe_failed(plan: &mut Plan<'_>, member: &Member<'_>, run: &Run, kind: ProbeKind) {
    let word = if kind == ProbeKind::Startup { "startup" } else { "liveness" };
    let subject = if member.role == Role::Main { "Container" } else { "Init container" };
    let again = member.role == Role::Main && restarts_when_killed(plan.pod, member);
    let tail = if again { ", will be restarted" } else { "" };
    let grace = probe::spec(&member.container, kind).and_then(|p| p.termination_grace_period_seconds);
    end_run(plan, member, run, format!("{subject} {} failed {word} probe{tail}", member.name()), grace);
}

/// Begins to end one run of a pod that goes on.
fn end_run(plan: &mut Plan<'_>, member: &Member<'_>, run: &Run, message: String, grace: Option<i64>) {
    let deadline = after_s(plan.now, grace.unwrap_or_else(|| grace_of(plan.pod)).max(1));
    plan.step(Step::StopRun { container: member.name().into(), run: run.id.clone(), message, deadline });
}
