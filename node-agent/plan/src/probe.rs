//! Probes: when the next one is due and what a result means.

use api::Timestamp;
use api::k8s_openapi::api::core::v1::{Container, Probe};

use crate::clock::after_s;
use crate::observed::{Hook, ProbeState, Probes, Run};
use crate::step::ProbeKind;

/// The three, in the order in which they are looked at.
pub const KINDS: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

impl Probes {
    /// The state of one of the three.
    pub fn get(&self, kind: ProbeKind) -> &ProbeState {
        match kind {
            ProbeKind::Startup => &self.startup,
            ProbeKind::Liveness => &self.liveness,
            ProbeKind::Readiness => &self.readiness,
        }
    }

    /// The state of one of the three, to change it.
    pub fn get_mut(&mut self, kind: ProbeKind) -> &mut ProbeState {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        }
    }
}

/// What the container specifies for one of the three.
pub fn spec(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

/// The process is there, its postStart hook has ended, and its start-up probe (if any) has succeeded.
pub fn started(container: &Container, run: &Run) -> bool {
    run.running()
        && begun(container, run)
        && (container.startup_probe.is_none() || run.probes.startup.verdict == Some(true))
}

/// The postStart hook (if any) has succeeded: only then does the container count as running.
pub fn begun(container: &Container, run: &Run) -> bool {
    let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    hook.is_none() || run.post_start == Hook::Done || run.post_start == Hook::Failed
}

/// Started, and its readiness probe (if any) has succeeded.
pub fn ready(container: &Container, run: &Run) -> bool {
    let probed = container.readiness_probe.is_none() || run.probes.readiness.verdict == Some(true);
    started(container, run) && probed
}

/// When this probe is to run next; `None` where it is not: none specified, under way, decided, or not its turn.
pub fn due(container: &Container, run: &Run, kind: ProbeKind) -> Option<Timestamp> {
    let probe = spec(container, kind)?;
    let state = run.probes.get(kind);
    if !run.running() || !begun(container, run) || state.in_flight || on_hold(state, kind) {
        return None;
    }
    let turn = (kind == ProbeKind::Startup) != started(container, run);
    let delay = i64::from(probe.initial_delay_seconds.unwrap_or(0));
    let period = i64::from(probe.period_seconds.filter(|p| *p > 0).unwrap_or(10));
    let first = after_s(run.started_at, delay);
    turn.then(|| state.begun.map_or(first, |begun| after_s(begun, period).max(first)))
}

/// A start-up probe that has decided and a liveness probe that has failed wait for the next run.
fn on_hold(state: &ProbeState, kind: ProbeKind) -> bool {
    match kind {
        ProbeKind::Startup => state.verdict.is_some(),
        ProbeKind::Liveness => state.verdict == Some(false),
        ProbeKind::Readiness => false,
    }
}

/// Takes a result in: a verdict changes only after as many equal results in a row as the thresholds say.
pub fn learn(state: &mut ProbeState, probe: &Probe, ok: bool) {
    state.in_flight = false;
    let run = match state.streak {
        Some((before, run)) if before == ok => run.saturating_add(1),
        _ => 1,
    };
    state.streak = Some((ok, run));
    let threshold = if ok { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
    if run >= threshold {
        state.verdict = Some(ok);
    }
}
