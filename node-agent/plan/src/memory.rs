//! How steps and facts change the memory of a pod, and the events they are worth.

use api::Timestamp;
use api::k8s_openapi::api::core::v1::Pod;

use crate::clock::{BACKOFF_FIRST_S, BACKOFF_MAX_S, BACKOFF_RESET_S, seconds};
use crate::member::member;
use crate::observed::{
    Backoff, Exit, Failure, Hook, ImageFacts, ImageStage, Observed, PodStop, Resize, Run, Seen, Stage, Stop, VERSION,
};
use crate::probe;
use crate::step::{Ended, Fact, Lifecycle, Note, ProbeKind, Process, PullFailure, Pulled, StartFailure, Step};

impl Observed {
    /// The memory of a pod just seen for the first time.
    pub fn new(now: Timestamp) -> Self {
        Self { version: VERSION, started_at: Some(now), ..Self::default() }
    }

    /// What is left of a memory when the agent that kept it has gone: nothing is under way any more.
    pub fn adopt(&mut self) {
        settle(&mut self.network);
        settle(&mut self.volumes);
        settle(&mut self.sandbox);
        settle(&mut self.teardown);
        settle(&mut self.forgotten);
        if let Stage::Done(volumes) = &mut self.volumes {
            volumes.refreshing = false;
        }
        for seen in self.containers.values_mut() {
            seen.starting = false;
            if seen.resize == Resize::Doing {
                seen.resize = Resize::Settled;
            }
            if matches!(seen.image, ImageStage::Pulling(_)) {
                seen.image = ImageStage::Absent;
            }
            if let Some(run) = &mut seen.current {
                adopt_run(run);
            }
        }
    }

    /// The run with that id.
    pub fn run_mut(&mut self, container: &str, run: &str) -> Option<&mut Run> {
        self.containers.get_mut(container).and_then(|s| s.current.as_mut()).filter(|r| r.id == run)
    }
}

fn settle<T>(stage: &mut Stage<T>) {
    if matches!(stage, Stage::Doing(_)) {
        *stage = Stage::Absent;
    }
}

/// A hook or a probe that was under way may not have run, a signal may not have been sent: they are run and sent again.
fn adopt_run(run: &mut Run) {
    if run.post_start == Hook::Doing {
        run.post_start = Hook::Pending;
    }
    if let Some(stop) = &mut run.stop {
        if stop.pre_stop == Hook::Doing {
            stop.pre_stop = Hook::Pending;
        }
        if stop.killed.take().is_none() {
            stop.signalled = None;
        }
    }
    for kind in probe::KINDS {
        let state = run.probes.get_mut(kind);
        if std::mem::take(&mut state.in_flight) {
            state.begun = None;
        }
    }
}

/// Notes that a step has begun; returns the events that are due at its beginning.
pub fn begin(seen: &mut Observed, step: &Step, now: Timestamp) -> Vec<Note> {
    match step {
        Step::Conclude(verdict) => {
            seen.verdict = Some(verdict.clone());
            return vec![verdict_note(&verdict.reason, &verdict.message)];
        }
        Step::AttachNetwork => seen.network = doing(&seen.network),
        Step::MountVolumes => match &mut seen.volumes {
            Stage::Done(volumes) => volumes.refreshing = true,
            stage => *stage = doing(stage),
        },
        Step::StartSandbox => seen.sandbox = doing(&seen.sandbox),
        Step::Teardown => seen.teardown = doing(&seen.teardown),
        Step::Forget => seen.forgotten = doing(&seen.forgotten),
        Step::StopPod { grace_seconds, deadline } => {
            seen.stop = Some(PodStop { grace_seconds: *grace_seconds, deadline: *deadline });
        }
        Step::PullImage { container, .. } => begin_pull(seen, container),
        Step::StartContainer { container, attempt, resources } => {
            let entry = of(seen, container);
            entry.resources = Some((**resources).clone());
            entry.resize = Resize::Settled;
            begin_start(entry, *attempt, now);
        }
        Step::Resize { container, .. } => of(seen, container).resize = Resize::Doing,
        Step::TellBackoff { container, note } => return tell(of(seen, container), note),
        _ => return begin_for_run(seen, step, now),
    }
    Vec::new()
}

/// Failures in a row are counted through the retries.
fn doing<T>(before: &Stage<T>) -> Stage<T> {
    Stage::Doing(before.failures())
}

fn verdict_note(reason: &str, message: &str) -> Note {
    let reason = if reason == "DeadlineExceeded" { "DeadlineExceeded" } else { "Failed" };
    Note::of_pod(reason, message)
}

fn of<'a>(seen: &'a mut Observed, container: &str) -> &'a mut Seen {
    seen.containers.entry(container.into()).or_default()
}

fn begin_pull(seen: &mut Observed, container: &str) {
    let entry = of(seen, container);
    let before = match &entry.image {
        ImageStage::Failed { delay_s, .. } => Some(*delay_s),
        _ => None,
    };
    entry.image = ImageStage::Pulling(before);
}

/// A start after an ended run is a restart: its successor waits longer. One that is begun again, because the agent was
/// killed in it, is counted once.
fn begin_start(seen: &mut Seen, attempt: u32, now: Timestamp) {
    seen.starting = true;
    let Some(exit) = seen.current.as_ref().and_then(|run| run.exit.as_ref()) else { return };
    if seen.backoff.as_ref().is_some_and(|b| b.attempt == attempt) {
        return;
    }
    let delay_s = match &seen.backoff {
        Some(b) if seconds(b.updated, exit.finished_at) <= BACKOFF_RESET_S => (b.delay_s * 2).min(BACKOFF_MAX_S),
        _ => BACKOFF_FIRST_S,
    };
    seen.backoff = Some(Backoff { attempt, delay_s, updated: now, told: false });
}

fn tell(seen: &mut Seen, note: &Note) -> Vec<Note> {
    match &mut seen.image {
        ImageStage::Failed { told, .. } => *told = true,
        _ => {
            if let Some(backoff) = &mut seen.backoff {
                backoff.told = true;
            }
        }
    }
    vec![note.clone()]
}

fn begin_for_run(seen: &mut Observed, step: &Step, now: Timestamp) -> Vec<Note> {
    match step {
        Step::RunHook { container, run, which, .. } => {
            if let Some(run) = seen.run_mut(container, run) {
                set_hook(run, *which, Hook::Doing);
            }
        }
        Step::RunProbe { container, run, which } => {
            if let Some(run) = seen.run_mut(container, run) {
                let state = run.probes.get_mut(*which);
                (state.begun, state.in_flight) = (Some(now), true);
            }
        }
        Step::RemoveRun { container, run } => {
            if let Some(run) = seen.run_mut(container, run) {
                run.removing = true;
            }
        }
        Step::StopRun { container, run, message, deadline } => {
            if let Some(run) = seen.run_mut(container, run) {
                let (pre_stop, signalled, killed) = (Hook::Pending, None, None);
                run.stop = Some(Stop { message: message.clone(), deadline: *deadline, pre_stop, signalled, killed });
            }
            return vec![Note::normal(container, "Killing", message.clone())];
        }
        Step::Signal { container, run, kill, .. } => {
            if let Some(stop) = seen.run_mut(container, run).and_then(|r| r.stop.as_mut()) {
                stop.signalled.get_or_insert(now);
                stop.killed = kill.then_some(now);
            }
        }
        _ => {}
    }
    Vec::new()
}

fn set_hook(run: &mut Run, which: Lifecycle, state: Hook) {
    match which {
        Lifecycle::PostStart => run.post_start = state,
        Lifecycle::PreStop => {
            if let Some(stop) = &mut run.stop {
                stop.pre_stop = state;
            }
        }
    }
}

/// Takes a fact in; returns the events it is worth.
pub fn learn(pod: &Pod, seen: &mut Observed, fact: Fact, now: Timestamp) -> Vec<Note> {
    match fact {
        Fact::Gone => seen.gone = true,
        Fact::Evicted(verdict) if seen.verdict.is_none() => {
            let note = Note::of_pod("Evicted", verdict.message.clone());
            seen.verdict = Some(verdict);
            return vec![note];
        }
        Fact::Evicted(_) => {}
        Fact::Network(result) => return stage(&mut seen.network, result, "FailedCreatePodSandBox", SANDBOX, now),
        Fact::Volumes(result) => return learn_volumes(seen, result, now),
        Fact::VolumesStale => {
            if let Stage::Done(volumes) = &mut seen.volumes {
                volumes.refresh_at = Some(now);
            }
        }
        Fact::Sandbox(result) => return stage(&mut seen.sandbox, result, "FailedCreatePodSandBox", SANDBOX, now),
        Fact::SandboxLost => return lose_sandbox(pod, seen, now),
        Fact::Pulling { container } => {
            let image = member(pod, &container).and_then(|m| m.container.image.clone()).unwrap_or_default();
            return vec![Note::normal(&container, "Pulling", format!("Pulling image \"{image}\""))];
        }
        Fact::Image { container, attempt, result } => return learn_image(pod, seen, &container, attempt, result, now),
        Fact::Started { container, attempt, result } => return learn_start(seen, &container, attempt, result, now),
        Fact::Hook { container, run, which, result } => return learn_hook(seen, &container, &run, which, result),
        Fact::Probe { container, run, which, ok, output } => {
            return learn_probe(pod, seen, &container, &run, which, ok, &output);
        }
        Fact::Resized { container, run, resources, result } => {
            return crate::resize::learn(pod, seen, (&container, &run), *resources, result, now);
        }
        Fact::Process { run, process, exit, message } => learn_process(seen, &run, process, exit, message),
        Fact::Removed { container, run } => {
            if let Some(run) = seen.run_mut(&container, &run) {
                run.removed = true;
            }
        }
        Fact::TornDown(result) => return learn_teardown(seen, result, now),
        Fact::Forgotten(result) => {
            stage(&mut seen.forgotten, result, "FailedSync", "error deleting pod", now);
        }
    }
    Vec::new()
}

const SANDBOX: &str = "Failed to create pod sandbox";

/// Ends a stage that was begun: what came of it, or one more failure.
fn stage<T>(
    stage: &mut Stage<T>,
    result: Result<T, String>,
    reason: &'static str,
    what: &str,
    now: Timestamp,
) -> Vec<Note> {
    let count = stage.failures() + 1;
    match result {
        Ok(value) => {
            *stage = Stage::Done(value);
            Vec::new()
        }
        Err(message) => {
            let message = format!("{what}: {message}");
            *stage = Stage::Failed(Failure { reason: reason.into(), message: message.clone(), at: now, count });
            vec![Note::of_pod(reason, message)]
        }
    }
}

fn learn_volumes(seen: &mut Observed, result: Result<Option<Timestamp>, String>, now: Timestamp) -> Vec<Note> {
    match (&mut seen.volumes, result) {
        // What is mounted stays as it was; it is tried again in a minute.
        (Stage::Done(volumes), Err(message)) => {
            volumes.refreshing = false;
            volumes.refresh_at = Some(crate::clock::after_s(now, 60));
            vec![Note::of_pod("FailedMount", message)]
        }
        (volumes, result) => {
            let result = result.map(|refresh_at| crate::observed::Volumes { refresh_at, refreshing: false });
            stage(volumes, result, "FailedMount", "MountVolume.SetUp failed for volume", now)
        }
    }
}

fn learn_teardown(seen: &mut Observed, result: Result<(), String>, now: Timestamp) -> Vec<Note> {
    if result.is_ok() {
        seen.network = Stage::Absent;
        seen.volumes = Stage::Absent;
        seen.sandbox = Stage::Absent;
    }
    stage(&mut seen.teardown, result, "FailedKillPod", "error killing pod", now)
}

/// The machine was restarted or the shim was killed: what ran is over, and all is made anew.
fn lose_sandbox(pod: &Pod, seen: &mut Observed, now: Timestamp) -> Vec<Note> {
    if seen.sandbox.done().is_none() || seen.teardown != Stage::Absent {
        return Vec::new();
    }
    seen.sandbox = Stage::Absent;
    seen.network = Stage::Absent;
    seen.volumes = Stage::Absent;
    for name in seen.containers.keys().cloned().collect::<Vec<_>>() {
        let seen = of(seen, &name);
        if let Some(run) = seen.current.as_mut().filter(|r| r.running()) {
            run.exit = Some(unknown_exit(now));
            run.removed = true;
        }
    }
    seen.sandbox_attempt += 1;
    let over = pod.metadata.deletion_timestamp.is_some() || seen.stop.is_some();
    let note = Note {
        warning: false,
        reason: "SandboxChanged",
        message: "Pod sandbox changed, it will be killed and re-created.".into(),
        container: None,
    };
    if over { Vec::new() } else { vec![note] }
}

fn unknown_exit(now: Timestamp) -> Exit {
    Exit {
        code: 137,
        signal: None,
        reason: "ContainerStatusUnknown".into(),
        message: "The container could not be located when the pod was terminated".into(),
        finished_at: now,
    }
}

fn learn_image(
    pod: &Pod,
    seen: &mut Observed,
    container: &str,
    attempt: u32,
    result: Result<Pulled, PullFailure>,
    now: Timestamp,
) -> Vec<Note> {
    let name = member(pod, container).and_then(|m| m.container.image.clone()).unwrap_or_default();
    let entry = of(seen, container);
    match result {
        Ok(pulled) => {
            entry.image = ImageStage::Ready { attempt, image: pulled.image };
            let message = match pulled.fetched {
                None => format!("Container image \"{name}\" already present on machine and can be accessed by the pod"),
                Some((ms, bytes)) => pulled_text(&name, ms, bytes),
            };
            vec![Note::normal(container, "Pulled", message)]
        }
        Err(failure) => {
            let before = match &entry.image {
                ImageStage::Pulling(before) => *before,
                _ => None,
            };
            let delay_s = before.map_or(BACKOFF_FIRST_S, |d| (d * 2).min(BACKOFF_MAX_S));
            let (failure, notes) = pull_failure(container, &name, failure, now);
            entry.image = ImageStage::Failed { failure, delay_s, told: false };
            notes
        }
    }
}

fn pulled_text(name: &str, ms: u64, bytes: u64) -> String {
    let text = go_duration(ms);
    format!("Successfully pulled image \"{name}\" in {text} ({text} including waiting). Image size: {bytes} bytes.")
}

/// Milliseconds as Go's `time.Duration` prints them: `1.5s`, `230ms`, `1m2s`.
fn go_duration(ms: u64) -> String {
    let seconds = |ms: u64| {
        let fraction = format!("{:03}", ms % 1000);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}s", ms / 1000)
    };
    match ms {
        0 => "0s".into(),
        1..1000 => format!("{ms}ms"),
        1000..60_000 => seconds(ms),
        _ => format!("{}m{}", ms / 60_000, seconds(ms % 60_000)),
    }
}

fn pull_failure(container: &str, image: &str, failure: PullFailure, now: Timestamp) -> (Failure, Vec<Note>) {
    let (reason, message, notes) = match failure {
        PullFailure::Never => {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            let note = Note::warning(container, "ErrImageNeverPull", message.clone());
            ("ErrImageNeverPull", message, vec![note])
        }
        PullFailure::InvalidName(why) => {
            let message = format!("Failed to apply default image tag \"{image}\": {why}");
            let note = Note::warning(container, "InspectFailed", message.clone());
            ("InvalidImageName", message, vec![note])
        }
        PullFailure::Failed(why) => {
            let told = Note::warning(container, "Failed", format!("Failed to pull image \"{image}\": {why}"));
            ("ErrImagePull", why, vec![told])
        }
    };
    let mut notes = notes;
    notes.push(Note::warning(container, "Failed", format!("Error: {reason}")));
    (Failure { reason: reason.into(), message, at: now, count: 1 }, notes)
}

fn learn_start(
    seen: &mut Observed,
    container: &str,
    attempt: u32,
    result: Result<Process, StartFailure>,
    now: Timestamp,
) -> Vec<Note> {
    let sandbox = seen.sandbox_attempt;
    let entry = of(seen, container);
    entry.starting = false;
    match result {
        Ok(process) => {
            entry.failure = None;
            new_run(entry, container, attempt, sandbox, process);
            let created = Note::normal(container, "Created", "Container created");
            vec![created, Note::normal(container, "Started", "Container started")]
        }
        Err(failure) => start_failed(entry, container, (attempt, sandbox), failure, now),
    }
}

/// A run is told twice, by who started it and by the shim, in any order.
fn new_run(seen: &mut Seen, container: &str, attempt: u32, sandbox: u32, process: Process) {
    if let Some(run) = seen.current.as_mut().filter(|run| run.attempt == attempt) {
        (run.pid, run.started_at) = (process.pid, process.started_at);
        return;
    }
    let image = match &seen.image {
        ImageStage::Ready { image, .. } => image.clone(),
        _ => ImageFacts::default(),
    };
    let run = Run {
        id: run_id(container, attempt),
        attempt,
        sandbox,
        image,
        pid: process.pid,
        started_at: process.started_at,
        exit: None,
        post_start: Hook::Pending,
        stop: None,
        probes: Default::default(),
        removing: false,
        removed: false,
    };
    if let Some(before) = seen.current.replace(run) {
        seen.last = Some(before);
    }
}

/// The shim's name for a run of a container.
pub fn run_id(container: &str, attempt: u32) -> String {
    format!("{container}-{attempt}")
}

fn start_failed(
    seen: &mut Seen,
    container: &str,
    (attempt, sandbox): (u32, u32),
    failure: StartFailure,
    now: Timestamp,
) -> Vec<Note> {
    let count = seen.failure.as_ref().map_or(0, |f| f.count) + 1;
    let (reason, message) = match failure {
        StartFailure::Config(message) => ("CreateContainerConfigError", message),
        StartFailure::Create(message) => ("CreateContainerError", message),
        StartFailure::Run(message) => {
            new_run(seen, container, attempt, sandbox, Process { pid: 0, started_at: now });
            if let Some(run) = &mut seen.current {
                let (code, signal, reason) = (128, None, "StartError".into());
                run.exit = Some(Exit { code, signal, reason, message: message.clone(), finished_at: now });
            }
            ("RunContainerError", message)
        }
    };
    seen.failure = Some(Failure { reason: reason.into(), message: message.clone(), at: now, count });
    vec![Note::warning(container, "Failed", format!("Error: {message}"))]
}

fn learn_hook(
    seen: &mut Observed,
    container: &str,
    run: &str,
    which: Lifecycle,
    result: Result<(), String>,
) -> Vec<Note> {
    let Some(run) = seen.run_mut(container, run) else { return Vec::new() };
    set_hook(run, which, if result.is_ok() { Hook::Done } else { Hook::Failed });
    match (which, result) {
        (_, Ok(())) => Vec::new(),
        (Lifecycle::PostStart, Err(_)) => vec![Note::warning(container, "FailedPostStartHook", "PostStartHook failed")],
        (Lifecycle::PreStop, Err(_)) => vec![Note::warning(container, "FailedPreStopHook", "PreStopHook failed")],
    }
}

fn learn_probe(
    pod: &Pod,
    seen: &mut Observed,
    container: &str,
    run: &str,
    which: ProbeKind,
    ok: bool,
    output: &str,
) -> Vec<Note> {
    let Some(member) = member(pod, container) else { return Vec::new() };
    let (Some(run), Some(spec)) = (seen.run_mut(container, run), probe::spec(&member.container, which)) else {
        return Vec::new();
    };
    if !run.running() {
        return Vec::new();
    }
    probe::learn(run.probes.get_mut(which), spec, ok);
    if ok {
        return Vec::new();
    }
    vec![Note::warning(container, "Unhealthy", format!("{which:?} probe failed: {output}"))]
}

/// A run that is not remembered was started just before the agent that started it ended: it comes after those that are.
fn learn_process(seen: &mut Observed, id: &str, process: Process, exit: Option<Ended>, message: String) {
    let Some((name, attempt)) = id.rsplit_once('-').and_then(|(n, a)| Some((n, a.parse::<u32>().ok()?))) else {
        return;
    };
    let sandbox = seen.sandbox_attempt;
    let entry = of(seen, name);
    if entry.current.as_ref().is_none_or(|run| run.attempt < attempt) {
        new_run(entry, name, attempt, sandbox, process);
    }
    let found = seen.containers.values_mut().filter_map(|s| s.current.as_mut()).find(|r| r.id == id);
    let Some(run) = found.filter(|r| r.running()) else { return };
    (run.pid, run.started_at) = (process.pid, process.started_at);
    if let Some(ended) = exit {
        run.exit = Some(exit_of(ended, message));
    }
}

fn exit_of(ended: Ended, message: String) -> Exit {
    let reason = match ended {
        Ended { oom_killed: true, .. } => "OOMKilled",
        Ended { code: 0, .. } => "Completed",
        _ => "Error",
    };
    let Ended { code, signal, finished_at, .. } = ended;
    Exit { code, signal, reason: reason.into(), message, finished_at }
}
