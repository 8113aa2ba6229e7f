//! The pod's conditions (kubelet's `status/generate.go`).

use api::Timestamp;
use api::k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::named;
use crate::member::{Role, members};
use crate::observed::{Observed, Resize};
use crate::pressure::EVICTED;

/// The conditions that the node owns, in the order in which it reports them.
const OWN: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
/// Those that it owns and that are there only while they are true.
pub const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// That of a pod which the node ends for its own sake.
const DISRUPTION: &str = "DisruptionTarget";

/// True, or why not.
struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    const TRUE: Self = Self { status: true, reason: None, message: None };

    fn not(reason: &'static str, message: Option<String>) -> Self {
        Self { status: false, reason: Some(reason), message }
    }
}

/// All conditions: those of others as they are, then our own.
pub(super) fn conditions(
    pod: &Pod,
    seen: &Observed,
    before: &PodStatus,
    all: &[ContainerStatus],
    phase: &str,
    now: Timestamp,
) -> Vec<PodCondition> {
    let old = before.conditions.as_deref().unwrap_or_default();
    let own = |c: &PodCondition| OWN.iter().chain(&PASSING).any(|own| *own == c.type_);
    let mut list: Vec<PodCondition> = old.iter().filter(|c| !own(c)).cloned().collect();
    if let Some(verdict) = seen.verdict.as_ref().filter(|v| v.reason == EVICTED && !v.rejected) {
        list.retain(|c| c.type_ != DISRUPTION);
        let message = Some(verdict.message.clone());
        let target = Verdict { status: true, reason: Some("TerminationByKubelet"), message };
        list.push(condition(DISRUPTION, target, old, pod.metadata.generation, now));
    }
    for (kind, verdict) in PASSING.into_iter().filter_map(|kind| Some((kind, resizing(kind, pod, seen)?))) {
        list.push(condition(kind, verdict, old, pod.metadata.generation, now));
    }
    for kind in OWN {
        let verdict = match kind {
            "PodReadyToStartContainers" => sandbox(seen),
            "Initialized" => initialized(pod, all, phase),
            "Ready" => ready(pod, old, all, phase),
            "ContainersReady" => containers_ready(pod, all, phase),
            _ => Verdict::TRUE,
        };
        list.push(condition(kind, verdict, old, pod.metadata.generation, now));
    }
    list
}

fn condition(
    kind: &str,
    verdict: Verdict,
    old: &[PodCondition],
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let same = old.iter().find(|c| c.type_ == kind && c.status == status);
    PodCondition {
        last_probe_time: None,
        last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        message: verdict.message,
        observed_generation: generation,
        reason: verdict.reason.map(Into::into),
        status: status.into(),
        type_: kind.into(),
    }
}

fn sandbox(seen: &Observed) -> Verdict {
    match seen.sandbox.done() {
        Some(()) => Verdict::TRUE,
        None if seen.sandbox_attempt == 0 && seen.stop.is_none() => not_ready("no pod sandbox exists"),
        None => not_ready("pod sandbox is not ready"),
    }
}

/// Refused resizes are pending; those under way, and those that failed half-way, are in progress.
fn resizing(kind: &str, pod: &Pod, seen: &Observed) -> Option<Verdict> {
    let of = |resize: &Resize| match resize {
        Resize::Settled => None,
        Resize::Doing => Some(("PodResizeInProgress", None)),
        Resize::Refused { failure, .. } if failure.reason == "Error" => {
            Some(("PodResizeInProgress", Some(("Error", failure.message.clone()))))
        }
        Resize::Refused { failure, .. } => {
            let reason = if failure.reason == "Infeasible" { "Infeasible" } else { "Deferred" };
            Some(("PodResizePending", Some((reason, failure.message.clone()))))
        }
    };
    let members = members(pod);
    let entries = members.iter().filter_map(|m| Some((m, seen.containers.get(m.name())?)));
    let unmet = entries.filter(|(m, entry)| crate::resize::wanted(entry, &m.container));
    let (_, why) = unmet.filter_map(|(_, entry)| of(&entry.resize)).find(|(of, _)| *of == kind)?;
    let (reason, message) = why.unzip();
    Some(Verdict { status: true, reason, message })
}

fn not_ready(message: &str) -> Verdict {
    Verdict::not("PodSandboxNotReady", Some(message.into()))
}

fn initialized(pod: &Pod, all: &[ContainerStatus], phase: &str) -> Verdict {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for member in members(pod) {
        let done = |s: &ContainerStatus| match member.role {
            Role::Sidecar => s.started == Some(true),
            _ => s.ready,
        };
        match (member.role, named(all, member.name())) {
            (Role::Main | Role::Ephemeral, _) => {}
            (_, None) => unknown.push(member.name().to_owned()),
            (_, Some(status)) if !done(status) => incomplete.push(member.name().to_owned()),
            _ => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return Verdict { reason: Some("PodCompleted"), ..Verdict::TRUE };
    }
    let main_started = members(pod).iter().any(|m| {
        let status = named(all, m.name());
        m.role == Role::Main && status.is_some_and(|s| s.container_id.is_some())
    });
    match listed(&[("unknown", &unknown), ("incomplete", &incomplete)]) {
        Some(message) if !main_started => Verdict::not("ContainersNotInitialized", Some(message)),
        _ => Verdict::TRUE,
    }
}

fn containers_ready(pod: &Pod, all: &[ContainerStatus], phase: &str) -> Verdict {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for member in members(pod) {
        match (member.role, named(all, member.name())) {
            (Role::Init | Role::Ephemeral, _) => {}
            (_, None) => unknown.push(member.name().to_owned()),
            (_, Some(status)) if !status.ready => unready.push(member.name().to_owned()),
            _ => {}
        }
    }
    match (phase, listed(&[("unknown", &unknown), ("unready", &unready)])) {
        ("Succeeded", _) if unknown.is_empty() => Verdict::not("PodCompleted", None),
        ("Failed", _) => Verdict::not("PodFailed", None),
        (_, Some(message)) => Verdict::not("ContainersNotReady", Some(message)),
        (_, None) => Verdict::TRUE,
    }
}

/// `containers with unready status: [a b], ...` as Go prints string slices.
fn listed(groups: &[(&str, &Vec<String>)]) -> Option<String> {
    let texts: Vec<String> = groups
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(word, names)| format!("containers with {word} status: [{}]", names.join(" ")))
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn ready(pod: &Pod, old: &[PodCondition], all: &[ContainerStatus], phase: &str) -> Verdict {
    let containers = containers_ready(pod, all, phase);
    if !containers.status {
        return containers;
    }
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
    let unmet: Vec<String> = gates.iter().filter_map(|gate| unmet(&gate.condition_type, old)).collect();
    match unmet.is_empty() {
        true => Verdict::TRUE,
        false => Verdict::not("ReadinessGatesNotReady", Some(unmet.join(", "))),
    }
}

fn unmet(gate: &str, conditions: &[PodCondition]) -> Option<String> {
    match conditions.iter().find(|c| c.type_ == gate) {
        None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
        Some(c) if c.status != "True" => {
            Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {}", c.status))
        }
        Some(_) => None,
    }
}
