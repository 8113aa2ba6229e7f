//! The pod's phase (kubelet's `getPhase`).

use api::k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};

use super::named;
use crate::member::{Member, Role, members, restarts};
use crate::observed::Observed;

/// How many containers are in which state.
#[derive(Default)]
struct Count {
    pending_init: u32,
    failed_init: u32,
    pending_sidecars: u32,
    unknown: u32,
    running: u32,
    waiting: u32,
    stopped: u32,
    stopped_for_good: u32,
    succeeded: u32,
}

/// A container's state, seen as the phase sees it: one that waits after a run counts as stopped.
enum View {
    Running,
    Waiting,
    Stopped(i32),
    Unknown,
}

fn view(state: Option<&ContainerState>, last: Option<&ContainerState>) -> View {
    let ended = |s: Option<&ContainerState>| s.and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    match state {
        Some(ContainerState { running: Some(_), .. }) => View::Running,
        Some(ContainerState { terminated: Some(t), .. }) => View::Stopped(t.exit_code),
        Some(ContainerState { waiting: Some(_), .. }) => ended(last).map_or(View::Waiting, View::Stopped),
        _ => View::Unknown,
    }
}

/// The phase; one that is over stays as it is.
pub(super) fn phase(
    pod: &Pod,
    seen: &Observed,
    before: &PodStatus,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> &'static str {
    match before.phase.as_deref() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ if seen.verdict.is_some() => return "Failed",
        _ => {}
    }
    let mut count = Count::default();
    for member in members(pod) {
        let status = named(if member.role == Role::Main { main } else { init }, member.name());
        let view = status.map_or(View::Unknown, |s| view(s.state.as_ref(), s.last_state.as_ref()));
        match member.role {
            Role::Init => count.init(pod, &member, view),
            Role::Sidecar => count.sidecar(view, status.and_then(|s| s.started) == Some(true)),
            Role::Main => count.main(pod, &member, view),
            Role::Ephemeral => {}
        }
    }
    count.phase(main.iter().any(|s| s.container_id.is_some()), seen.stop.is_some() && seen.teardown.done().is_some())
}

impl Count {
    fn init(&mut self, pod: &Pod, member: &Member<'_>, view: View) {
        match view {
            View::Stopped(0) => {}
            View::Stopped(code) => self.failed_init += u32::from(!restarts(pod, member, code)),
            View::Running | View::Waiting | View::Unknown => self.pending_init += 1,
        }
    }

    fn sidecar(&mut self, view: View, started: bool) {
        match view {
            View::Running => {
                self.pending_sidecars += u32::from(!started);
                self.running += 1;
            }
            View::Waiting => {
                self.pending_sidecars += 1;
                self.waiting += 1;
            }
            View::Unknown => self.unknown += 1,
            View::Stopped(_) => {}
        }
    }

    fn main(&mut self, pod: &Pod, member: &Member<'_>, view: View) {
        match view {
            View::Running => self.running += 1,
            View::Waiting => self.waiting += 1,
            View::Unknown => self.unknown += 1,
            View::Stopped(code) => {
                self.stopped += 1;
                self.stopped_for_good += u32::from(!restarts(pod, member, code));
                self.succeeded += u32::from(code == 0);
            }
        }
    }

    fn phase(&self, initialised: bool, terminal: bool) -> &'static str {
        let initialising = self.pending_init > 0 || (self.pending_sidecars > 0 && !initialised);
        if self.failed_init > 0 {
            return "Failed";
        }
        if initialising || self.waiting > 0 {
            return "Pending";
        }
        if self.running > 0 && self.unknown == 0 {
            return "Running";
        }
        if self.stopped == 0 || self.unknown > 0 {
            return "Pending";
        }
        match self.stopped == self.succeeded {
            _ if !terminal && self.stopped != self.stopped_for_good => "Running",
            true => "Succeeded",
            false => "Failed",
        }
    }
}
