//! What makes pods from a template.

use api::{LabelSelector, Timestamp, duration, time};
use serde_json::Value;

use super::Related;
use super::pod::controlled_by;
use super::pod_template::template;
use super::text::{Text, when};
use crate::verbs::value::{list, number_at, text, text_at};

fn head(object: &Value, created: bool, out: &mut Text) {
    out.field(0, "Name", text_at(object, "/metadata/name"));
    out.field(0, "Namespace", text_at(object, "/metadata/namespace"));
    if created {
        out.field(0, "CreationTimestamp", when(text_at(object, "/metadata/creationTimestamp")));
    }
}

fn labels(object: &Value, out: &mut Text) {
    out.pairs("Labels", object.pointer("/metadata/labels"));
    out.annotations("Annotations", object.pointer("/metadata/annotations"));
}

fn selector(object: &Value) -> String {
    LabelSelector::from_object(object.pointer("/spec/selector")).map(|s| s.to_string()).unwrap_or_default()
}

fn pods(related: &Related) -> String {
    let of = |phase: &str| related.pods.iter().filter(|p| text_at(p, "/status/phase") == phase).count();
    let [running, waiting, succeeded, failed] = ["Running", "Pending", "Succeeded", "Failed"].map(of);
    format!("{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed")
}

fn body(object: &Value, out: &mut Text) {
    template(object.pointer("/spec/template").unwrap_or(&Value::Null), out);
}

fn conditions(object: &Value, out: &mut Text) {
    let conditions = object.get("status").map_or(&[] as &[Value], |s| list(s, "conditions"));
    if conditions.is_empty() {
        return;
    }
    out.line(0, "Conditions:");
    out.line(1, "Type\tStatus\tReason");
    out.line(1, "----\t------\t------");
    for c in conditions {
        out.line(1, &format!("{} \t{}\t{}", text(c, "type"), text(c, "status"), text(c, "reason")));
    }
}

pub(super) fn deployment(object: &Value, related: &Related, _now: Timestamp, out: &mut Text) {
    let of = |field: &str| number_at(object, &format!("/status/{field}"));
    head(object, true, out);
    labels(object, out);
    out.field(0, "Selector", selector(object));
    let (total, available) = (of("replicas"), of("availableReplicas"));
    let desired = number_at(object, "/spec/replicas");
    let counts = format!(
        "{desired} desired | {} updated | {total} total | {available} available | {} unavailable",
        of("updatedReplicas"),
        of("unavailableReplicas")
    );
    out.field(0, "Replicas", counts);
    out.field(0, "StrategyType", text_at(object, "/spec/strategy/type"));
    out.field(0, "MinReadySeconds", number_at(object, "/spec/minReadySeconds"));
    if let Some(rolling) = object.pointer("/spec/strategy/rollingUpdate") {
        let of = |field: &str| match rolling.get(field) {
            Some(Value::String(text)) => text.clone(),
            other => other.map(ToString::to_string).unwrap_or_default(),
        };
        let shown = format!("{} max unavailable, {} max surge", of("maxUnavailable"), of("maxSurge"));
        out.field(0, "RollingUpdateStrategy", shown);
    }
    body(object, out);
    conditions(object, out);
    replica_sets(object, &related.replica_sets, out);
}

fn replica_sets(deployment: &Value, sets: &[Value], out: &mut Text) {
    if sets.is_empty() {
        return;
    }
    let revision = |o: &Value| text_at(o, "/metadata/annotations/deployment.kubernetes.io~1revision").to_owned();
    let current = revision(deployment);
    let show = |set: &&Value| {
        let (name, created) = (text_at(set, "/metadata/name"), number_at(set, "/status/replicas"));
        format!("{name} ({created}/{} replicas created)", number_at(set, "/spec/replicas"))
    };
    let join = |new: bool| {
        let shown: Vec<String> = sets.iter().filter(|s| (revision(s) == current) == new).map(|s| show(&s)).collect();
        if shown.is_empty() { "<none>".to_owned() } else { shown.join(", ") }
    };
    out.field(0, "OldReplicaSets", join(false));
    out.field(0, "NewReplicaSet", join(true));
}

pub(super) fn replica_set(object: &Value, related: &Related, _now: Timestamp, out: &mut Text) {
    head(object, false, out);
    out.field(0, "Selector", selector(object));
    labels(object, out);
    controlled_by(object, out);
    let (current, desired) = (number_at(object, "/status/replicas"), number_at(object, "/spec/replicas"));
    out.field(0, "Replicas", format!("{current} current / {desired} desired"));
    out.field(0, "Pods Status", pods(related));
    body(object, out);
    conditions(object, out);
}

pub(super) fn stateful_set(object: &Value, related: &Related, _now: Timestamp, out: &mut Text) {
    head(object, true, out);
    out.field(0, "Selector", selector(object));
    labels(object, out);
    let (desired, total) = (number_at(object, "/spec/replicas"), number_at(object, "/status/replicas"));
    out.field(0, "Replicas", format!("{desired} desired | {total} total"));
    out.field(0, "Update Strategy", text_at(object, "/spec/updateStrategy/type"));
    if let Some(partition) = object.pointer("/spec/updateStrategy/rollingUpdate/partition") {
        out.field(1, "Partition", partition);
    }
    out.field(0, "Pods Status", pods(related));
    body(object, out);
}

pub(super) fn daemon_set(object: &Value, related: &Related, _now: Timestamp, out: &mut Text) {
    let counts = [
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ];
    head(object, false, out);
    out.field(0, "Selector", selector(object));
    let nodes = object.pointer("/spec/template/spec/nodeSelector").and_then(Value::as_object).into_iter().flatten();
    let nodes: Vec<String> = nodes.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    out.field(0, "Node-Selector", if nodes.is_empty() { "<none>".into() } else { nodes.join(",") });
    labels(object, out);
    for (title, field) in counts {
        out.line(0, &format!("{title}: {}", number_at(object, &format!("/status/{field}"))));
    }
    out.field(0, "Pods Status", pods(related));
    body(object, out);
}

pub(super) fn job(object: &Value, _related: &Related, _now: Timestamp, out: &mut Text) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let status = object.get("status").unwrap_or(&Value::Null);
    head(object, false, out);
    out.field(0, "Selector", selector(object));
    labels(object, out);
    controlled_by(object, out);
    let fields = [
        ("Parallelism", "parallelism"),
        ("Completions", "completions"),
        ("Completion Mode", "completionMode"),
        ("Suspend", "suspend"),
        ("Backoff Limit", "backoffLimit"),
        ("TTL Seconds After Finished", "ttlSecondsAfterFinished"),
    ];
    for (title, field) in fields {
        match spec.get(field) {
            Some(Value::String(text)) => out.field(0, title, text),
            Some(value) => out.field(0, title, value),
            None if field == "completions" => out.field(0, title, "<unset>"),
            None => {}
        }
    }
    times(status, out);
    let of = |field: &str| number_at(status, &format!("/{field}"));
    let (active, succeeded, failed) = (of("active"), of("succeeded"), of("failed"));
    let ready = status.get("ready").map(|n| format!(" ({n} Ready)")).unwrap_or_default();
    out.field(0, "Pods Statuses", format!("{active} Active{ready} / {succeeded} Succeeded / {failed} Failed"));
    body(object, out);
}

fn times(status: &Value, out: &mut Text) {
    let (start, end) = (text(status, "startTime"), text(status, "completionTime"));
    if !start.is_empty() {
        out.field(0, "Start Time", when(start));
    }
    if !end.is_empty() {
        out.field(0, "Completed At", when(end));
    }
    if let (Some(start), Some(end)) = (time::parse(start), time::parse(end)) {
        out.field(0, "Duration", duration::human(end.duration_since(start).as_secs()));
    }
}
