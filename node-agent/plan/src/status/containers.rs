//! The status of each container.

use api::Timestamp;
use api::k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod,
    PodStatus, VolumeMountStatus,
};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{has_init, pod_text};
use crate::clock::{BACKOFF_RESET_S, after_s, seconds};
use crate::member::{Member, Role, members, restarts};
use crate::observed::{ImageStage, Observed, Run, Seen};
use crate::probe;

/// The scheme of our container ids.
const RUNTIME: &str = "trimtab";

/// The container's id in the API: `trimtab://<pod uid>_<name>-<attempt>`.
pub fn container_id(pod: &Pod, run: &str) -> String {
    format!("{RUNTIME}://{}_{run}", pod.metadata.uid.as_deref().unwrap_or_default())
}

/// The statuses of the containers of these roles, init containers in their order, others by name.
pub(super) fn statuses(
    pod: &Pod,
    seen: &Observed,
    before: &PodStatus,
    now: Timestamp,
    roles: &[Role],
) -> Vec<ContainerStatus> {
    let members = members(pod);
    let mut list: Vec<_> = members
        .iter()
        .filter(|m| roles.contains(&m.role))
        .map(|m| one(pod, seen, m, before_of(before, m), now))
        .collect();
    if !roles.contains(&Role::Init) {
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    list
}

fn before_of<'a>(before: &'a PodStatus, member: &Member<'_>) -> Option<&'a ContainerStatus> {
    let list = match member.role {
        Role::Init | Role::Sidecar => &before.init_container_statuses,
        Role::Main => &before.container_statuses,
        Role::Ephemeral => &before.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|s| s.name == member.name())
}

fn one(
    pod: &Pod,
    seen: &Observed,
    member: &Member<'_>,
    before: Option<&ContainerStatus>,
    now: Timestamp,
) -> ContainerStatus {
    let entry = seen.containers.get(member.name());
    let Some(run) = entry.and_then(|s| s.current.as_ref()) else {
        return never_run(pod, seen, member, entry, before, now);
    };
    let (state, last_state) = states(pod, seen, member, entry, run, now);
    let running = run.running();
    // What it has, which may not be what it is to have.
    let given =
        entry.and_then(|s| s.resources.clone()).or_else(|| member.container.resources.clone()).unwrap_or_default();
    ContainerStatus {
        allocated_resources: given.requests.clone(),
        container_id: Some(container_id(pod, &run.id)),
        image: run.image.name.clone(),
        image_id: run.image.reference.clone(),
        last_state: Some(last_state),
        name: member.name().into(),
        ready: is_ready(member, run),
        resources: Some(given),
        restart_count: i32::try_from(run.attempt).unwrap_or(i32::MAX),
        started: Some(running && probe::started(&member.container, run)),
        state: Some(state),
        volume_mounts: mounts(member),
        ..ContainerStatus::default()
    }
}

/// An init container is ready once it has succeeded, others while their probe says so.
fn is_ready(member: &Member<'_>, run: &Run) -> bool {
    match member.role {
        Role::Init => run.exit.as_ref().is_some_and(|e| e.code == 0),
        Role::Sidecar | Role::Main => probe::ready(&member.container, run),
        Role::Ephemeral => false,
    }
}

fn never_run(
    pod: &Pod,
    seen: &Observed,
    member: &Member<'_>,
    entry: Option<&Seen>,
    before: Option<&ContainerStatus>,
    now: Timestamp,
) -> ContainerStatus {
    if let Some(before) = before.filter(|b| b.state.as_ref().is_some_and(|s| s.terminated.is_some())) {
        return before.clone();
    }
    let waiting = entry.and_then(|s| wait_reason(pod, seen, member, s, now)).unwrap_or_else(|| creating(pod));
    ContainerStatus {
        image: member.container.image.clone().unwrap_or_default(),
        last_state: Some(before.and_then(|b| b.last_state.clone()).unwrap_or_default()),
        name: member.name().into(),
        restart_count: before.map_or(0, |b| b.restart_count),
        started: Some(false),
        state: Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() }),
        volume_mounts: mounts(member),
        ..ContainerStatus::default()
    }
}

fn creating(pod: &Pod) -> ContainerStateWaiting {
    let reason = if has_init(pod) { "PodInitializing" } else { "ContainerCreating" };
    ContainerStateWaiting { reason: Some(reason.into()), message: None }
}

/// State and last state of a container that has run.
fn states(
    pod: &Pod,
    seen: &Observed,
    member: &Member<'_>,
    entry: Option<&Seen>,
    run: &Run,
    now: Timestamp,
) -> (ContainerState, ContainerState) {
    let last = entry.and_then(|s| s.last.as_ref());
    let last_state = || last.map(|run| ended(pod, run)).unwrap_or_default();
    if run.running() {
        let state = if probe::begun(&member.container, run) {
            let running = ContainerStateRunning { started_at: Some(Time(run.started_at)) };
            ContainerState { running: Some(running), ..ContainerState::default() }
        } else {
            ContainerState { waiting: Some(creating(pod)), ..ContainerState::default() }
        };
        return (state, last_state());
    }
    match entry.and_then(|s| wait_reason(pod, seen, member, s, now)) {
        Some(waiting) => (ContainerState { waiting: Some(waiting), ..ContainerState::default() }, ended(pod, run)),
        None => (ended(pod, run), last_state()),
    }
}

fn ended(pod: &Pod, run: &Run) -> ContainerState {
    let terminated = run.exit.as_ref().map(|exit| ContainerStateTerminated {
        container_id: Some(container_id(pod, &run.id)),
        exit_code: exit.code,
        finished_at: Some(Time(exit.finished_at)),
        message: Some(exit.message.clone()).filter(|m| !m.is_empty()),
        reason: Some(exit.reason.clone()),
        signal: None,
        started_at: Some(Time(run.started_at)),
    });
    ContainerState { terminated, ..ContainerState::default() }
}

/// Why a container that is to be started has not been; `None` where nothing is known, or it is not to be started.
fn wait_reason(
    pod: &Pod,
    seen: &Observed,
    member: &Member<'_>,
    entry: &Seen,
    now: Timestamp,
) -> Option<ContainerStateWaiting> {
    let exit = entry.current.as_ref().and_then(|run| run.exit.as_ref());
    let over = exit.is_some_and(|e| (member.role == Role::Init && e.code == 0) || !restarts(pod, member, e.code));
    if over || seen.stop.is_some() {
        return None;
    }
    let (reason, message) = crash_loop(pod, member, entry, now)
        .or_else(|| start_failure(entry))
        .or_else(|| image_failure(member, entry))?;
    Some(ContainerStateWaiting { reason: Some(reason), message: Some(message).filter(|m| !m.is_empty()) })
}

fn crash_loop(pod: &Pod, member: &Member<'_>, entry: &Seen, now: Timestamp) -> Option<(String, String)> {
    let (exit, backoff) = entry.backing_off()?;
    let waits = seconds(backoff.updated, exit.finished_at) <= BACKOFF_RESET_S
        && now < after_s(exit.finished_at, backoff.delay_s);
    let text = minutes(backoff.delay_s);
    let message = format!("back-off {text} restarting failed container={} pod={}", member.name(), pod_text(pod));
    waits.then(|| ("CrashLoopBackOff".into(), message))
}

/// Seconds as Go prints them: `40s`, `1m20s`, `5m0s`.
fn minutes(seconds: i64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

fn start_failure(entry: &Seen) -> Option<(String, String)> {
    let failure = entry.failure.as_ref()?;
    Some((failure.reason.clone(), failure.message.clone()))
}

/// `ErrImagePull` when it has just failed, then `ImagePullBackOff` until it is tried again.
fn image_failure(member: &Member<'_>, entry: &Seen) -> Option<(String, String)> {
    let ImageStage::Failed { failure, told, .. } = &entry.image else { return None };
    if !told || failure.reason != "ErrImagePull" {
        return Some((failure.reason.clone(), failure.message.clone()));
    }
    let image = member.container.image.as_deref().unwrap_or_default();
    let message = format!("Back-off pulling image \"{image}\": {}: {}", failure.reason, failure.message);
    Some(("ImagePullBackOff".into(), message))
}

fn mounts(member: &Member<'_>) -> Option<Vec<VolumeMountStatus>> {
    let list = member.container.volume_mounts.iter().flatten();
    let list = list.map(|mount| {
        let read_only = mount.read_only.filter(|r| *r);
        let recursive = match mount.recursive_read_only.as_deref() {
            Some("Enabled" | "IfPossible") => "Enabled",
            _ => "Disabled",
        };
        VolumeMountStatus {
            mount_path: mount.mount_path.clone(),
            name: mount.name.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| recursive.into()),
            ..VolumeMountStatus::default()
        }
    });
    super::some(list.collect())
}
