//! The next steps for a pod bound to this node.

use api::Timestamp;
use api::k8s_openapi::api::core::v1::Pod;
use reconcile::Outcome;

use crate::clock::after_s;
use crate::member::{Member, Role, members, restarts};
use crate::observed::{Observed, Run, Seen, Stage, Verdict};
use crate::step::Step;
use crate::{start, stop};

/// Decides what to do next for `pod`, of which `seen` is known. Called again with the same arguments it returns the
/// same steps; each step that has begun shows in `seen` (see [`crate::begin`]) and is not asked for again.
pub fn decide(pod: &Pod, seen: &Observed, now: Timestamp) -> Outcome<Step> {
    let mut plan = Plan { pod, seen, now, members: members(pod), out: Outcome::default() };
    match ending(&mut plan) {
        Some(why) => stop::stop(&mut plan, why),
        None => start::run(&mut plan),
    }
    plan.out
}

/// One decision in the making.
pub(crate) struct Plan<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) seen: &'a Observed,
    pub(crate) now: Timestamp,
    pub(crate) members: Vec<Member<'a>>,
    pub(crate) out: Outcome<Step>,
}

impl<'a> Plan<'a> {
    /// The members of a role, in order.
    pub(crate) fn of_role(&self, role: Role) -> Vec<Member<'a>> {
        self.members.iter().filter(|m| m.role == role).cloned().collect()
    }

    /// What was seen of a container.
    pub(crate) fn seen_of(&self, name: &str) -> Option<&'a Seen> {
        self.seen.containers.get(name)
    }

    /// The latest run of a container, whatever its sandbox.
    pub(crate) fn run_of(&self, name: &str) -> Option<&'a Run> {
        self.seen_of(name).and_then(|s| s.current.as_ref())
    }

    /// The latest run of a container in the present sandbox.
    pub(crate) fn active(&self, name: &str) -> Option<&'a Run> {
        self.run_of(name).filter(|run| run.sandbox == self.seen.sandbox_attempt)
    }

    /// Adds a step.
    pub(crate) fn step(&mut self, step: Step) {
        self.out.effect(step);
    }

    /// Whether a retry is due; asks to be woken when it is not.
    pub(crate) fn due(&mut self, at: Timestamp) -> bool {
        let due = at <= self.now;
        if !due {
            self.out.wake(at);
        }
        due
    }
}

/// Why a pod is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is deleted, or gone from the API server.
    Deleted,
    /// It has failed as a whole, or the API server says it is over.
    Concluded,
    /// Its containers have done all they will do.
    Settled,
}

fn ending(plan: &mut Plan<'_>) -> Option<Ending> {
    if plan.seen.gone || plan.pod.metadata.deletion_timestamp.is_some() {
        return Some(Ending::Deleted);
    }
    if plan.seen.verdict.is_some() || over(plan.pod) {
        return Some(Ending::Concluded);
    }
    if settled(plan.pod, plan.seen, &plan.members) {
        return Some(Ending::Settled);
    }
    deadline_passed(plan).then(|| {
        plan.step(Step::Conclude(Verdict {
            reason: "DeadlineExceeded".into(),
            message: "Pod was active on the node longer than the specified deadline".into(),
            rejected: false,
        }));
        Ending::Concluded
    })
}

fn over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Looks at the pod's deadline, and asks to be woken at it.
fn deadline_passed(plan: &mut Plan<'_>) -> bool {
    let limit = plan.pod.spec.as_ref().and_then(|s| s.active_deadline_seconds);
    match (limit, plan.seen.started_at) {
        (Some(limit), Some(start)) => plan.due(after_s(start, limit)),
        _ => false,
    }
}

/// Whether nothing of the pod will run again: an init container has failed for good, or every main container has ended
/// for good.
pub(crate) fn settled(pod: &Pod, seen: &Observed, members: &[Member<'_>]) -> bool {
    let ended = |m: &Member<'_>| {
        let seen = seen.containers.get(m.name());
        seen.filter(|s| !s.starting).and_then(|s| s.current.as_ref()).and_then(|r| r.exit.as_ref()).map(|e| e.code)
    };
    let failed = |m: &Member<'_>| ended(m).is_some_and(|code| code != 0 && !restarts(pod, m, code));
    let over = |m: &Member<'_>| ended(m).is_some_and(|code| !restarts(pod, m, code));
    let mut main = members.iter().filter(|m| m.role == Role::Main).peekable();
    members.iter().any(|m| m.role == Role::Init && failed(m)) || (main.peek().is_some() && main.all(over))
}

/// Whether a main container has run in the present sandbox: the pod is initialised and stays so.
pub(crate) fn initialised(plan: &Plan<'_>) -> bool {
    plan.members.iter().any(|m| m.role == Role::Main && plan.active(m.name()).is_some())
}

/// Whether a step of the pod's set-up is to be begun: it is absent, or its last failure is long enough ago.
pub(crate) fn wanted<T>(plan: &mut Plan<'_>, stage: &Stage<T>) -> bool {
    match stage {
        Stage::Absent => true,
        Stage::Failed(failure) => plan.due(crate::clock::retry_at(failure.at, failure.count)),
        Stage::Doing(_) | Stage::Done(_) => false,
    }
}
