//! A pod's row: ready containers, what it is doing, restarts.

use serde_json::{Value, json};

use crate::kinds::cell::{self, NONE, or, row};
use crate::tree::{flag, number, text};
use crate::{Document, Timestamp, time};

/// What the containers' statuses add up to.
#[derive(Default)]
struct Tally<'a> {
    restarts: i64,
    last_restart: Option<(Timestamp, &'a str)>,
    ready: usize,
    total: usize,
    reason: String,
}

impl<'a> Tally<'a> {
    fn restarted(&mut self, status: &'a Value) {
        self.restarts += number(status, "restartCount").unwrap_or_default();
        let finished = status.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str);
        if let Some(at) = finished.and_then(|text| Some((time::parse(text)?, text))) {
            self.last_restart = self.last_restart.max(Some(at));
        }
    }
}

/// The row of a pod.
pub(super) fn cells(pod: &Document, now: Timestamp) -> Option<Vec<Value>> {
    let tally = tally(pod);
    let restarts = match tally.last_restart {
        Some((_, at)) if tally.restarts != 0 => format!("{} ({} ago)", tally.restarts, time::since(at, now)),
        _ => tally.restarts.to_string(),
    };
    let ip = pod.list_at("/status/podIPs").first().map_or("", |ip| text(ip, "ip"));
    row![
        pod.name(),
        format!("{}/{}", tally.ready, tally.total),
        tally.reason,
        restarts,
        cell::age(pod, now),
        or(ip, NONE),
        or(pod.str_at("/spec/nodeName"), NONE),
        or(pod.str_at("/status/nominatedNodeName"), NONE),
        readiness_gates(pod),
    ]
}

/// The conditions of a finished pod's row.
pub(super) fn conditions(pod: &Document) -> Vec<Value> {
    let (reason, message) = match pod.str_at("/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

fn tally(pod: &Document) -> Tally<'_> {
    let phase = pod.str_at("/status/phase");
    let status_reason = pod.str_at("/status/reason");
    let gated = pod
        .list_at("/status/conditions")
        .iter()
        .any(|c| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated");
    let reason = if gated { "SchedulingGated" } else { or(status_reason, phase) };
    let mut tally = Tally { reason: reason.into(), total: pod.list_at("/spec/containers").len(), ..Tally::default() };
    tally.total += pod.list_at("/spec/initContainers").iter().filter(|c| is_sidecar(c)).count();
    let mut sidecars = Tally::default();
    let initializing = initialize(pod, &mut tally, &mut sidecars);
    if !initializing || cell::is_true(pod, "Initialized") {
        (tally.restarts, tally.last_restart) = (sidecars.restarts, sidecars.last_restart);
        run(pod, &mut tally);
    }
    let terminal = matches!(phase, "Succeeded" | "Failed");
    if pod.deleting() && status_reason == "NodeLost" {
        tally.reason = "Unknown".into();
    } else if pod.deleting() && !terminal {
        tally.reason = "Terminating".into();
    }
    tally
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

/// Goes through the init containers up to the one that is not done; says whether there is one.
fn initialize<'a>(pod: &'a Document, tally: &mut Tally<'a>, sidecars: &mut Tally<'a>) -> bool {
    let containers = pod.list_at("/spec/initContainers");
    for (i, status) in pod.list_at("/status/initContainerStatuses").iter().enumerate() {
        let name = text(status, "name");
        let sidecar = containers.iter().any(|c| text(c, "name") == name && is_sidecar(c));
        tally.restarted(status);
        if sidecar {
            sidecars.restarted(status);
        }
        let terminated = status.pointer("/state/terminated");
        let waiting = status.pointer("/state/waiting").map_or("", |w| text(w, "reason"));
        match terminated {
            Some(end) if number(end, "exitCode").unwrap_or_default() == 0 => continue,
            _ if sidecar && flag(status, "started") => {
                tally.ready += usize::from(flag(status, "ready"));
                continue;
            }
            Some(end) => tally.reason = format!("Init:{}", ending(end)),
            None if !matches!(waiting, "" | "PodInitializing") => tally.reason = format!("Init:{waiting}"),
            None => tally.reason = format!("Init:{i}/{}", containers.len()),
        }
        return true;
    }
    false
}

/// Goes through the containers, the last one first, so that the first one's reason stands.
fn run<'a>(pod: &'a Document, tally: &mut Tally<'a>) {
    let mut running = false;
    let mut failure = None;
    for status in pod.list_at("/status/containerStatuses").iter().rev() {
        tally.restarted(status);
        let waiting = status.pointer("/state/waiting").map_or("", |w| text(w, "reason"));
        if !waiting.is_empty() {
            tally.reason = waiting.into();
        } else if let Some(end) = status.pointer("/state/terminated").filter(|v| !v.is_null()) {
            tally.reason = ending(end);
            if number(end, "exitCode").unwrap_or_default() != 0 {
                failure = Some(tally.reason.clone());
            }
        } else if flag(status, "ready") && status.pointer("/state/running").is_some() {
            running = true;
            tally.ready += 1;
        }
    }
    if tally.reason == "Completed" {
        if running && cell::is_true(pod, "Ready") {
            tally.reason = "Running".into();
        } else if let Some(failure) = failure {
            tally.reason = failure;
        } else if running {
            tally.reason = "NotReady".into();
        }
    }
}

/// Why a container ended: its reason, signal or exit code.
fn ending(terminated: &Value) -> String {
    let signal = number(terminated, "signal").unwrap_or_default();
    match text(terminated, "reason") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", number(terminated, "exitCode").unwrap_or_default()),
        reason => reason.into(),
    }
}

fn readiness_gates(pod: &Document) -> String {
    let gates = pod.list_at("/spec/readinessGates");
    let open = gates.iter().filter(|gate| cell::is_true(pod, text(gate, "conditionType"))).count();
    if gates.is_empty() { NONE.into() } else { format!("{open}/{}", gates.len()) }
}

/// The fields that a selector may name.
pub(super) fn selectable(pod: &Document) -> Vec<(&'static str, String)> {
    let at = |pointer: &str| pod.str_at(pointer).to_owned();
    let ip = pod.list_at("/status/podIPs").first().map_or("", |ip| text(ip, "ip"));
    vec![
        ("spec.nodeName", at("/spec/nodeName")),
        ("spec.restartPolicy", at("/spec/restartPolicy")),
        ("spec.schedulerName", at("/spec/schedulerName")),
        ("spec.serviceAccountName", at("/spec/serviceAccountName")),
        ("spec.hostNetwork", pod.bool_at("/spec/hostNetwork").to_string()),
        ("status.phase", at("/status/phase")),
        ("status.podIP", ip.into()),
        ("status.nominatedNodeName", at("/status/nominatedNodeName")),
    ]
}
