//! A node and what runs there.

use api::quantity::QuantityFormat;
use api::{Quantity, Timestamp, time};
use serde_json::Value;

use super::Related;
use super::text::{Text, when};
use crate::verbs::value::{list, text, text_at};

pub(super) fn node(node: &Value, related: &Related, now: Timestamp, out: &mut Text) {
    let status = node.get("status").unwrap_or(&Value::Null);
    out.field(0, "Name", text_at(node, "/metadata/name"));
    out.field(0, "Roles", roles(node));
    out.pairs("Labels", node.pointer("/metadata/labels"));
    out.annotations("Annotations", node.pointer("/metadata/annotations"));
    out.field(0, "CreationTimestamp", when(text_at(node, "/metadata/creationTimestamp")));
    out.lines("Taints", &taints(node.get("spec").map_or(&[], |spec| list(spec, "taints"))));
    out.field(0, "Unschedulable", node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)));
    if let Some(lease) = &related.lease {
        out.line(0, "Lease:");
        out.field(1, "HolderIdentity", text_at(lease, "/spec/holderIdentity"));
        out.field(1, "AcquireTime", when(text_at(lease, "/spec/acquireTime")));
        out.field(1, "RenewTime", when(text_at(lease, "/spec/renewTime")));
    }
    conditions(list(status, "conditions"), out);
    out.line(0, "Addresses:");
    list(status, "addresses").iter().for_each(|a| out.field(1, text(a, "type"), text(a, "address")));
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        out.line(0, &format!("{title}:"));
        let all = status.get(field).and_then(Value::as_object).into_iter().flatten();
        all.for_each(|(name, value)| out.field(1, name, value.as_str().unwrap_or_default()));
    }
    system(status, out);
    out.some(0, "PodCIDR", text_at(node, "/spec/podCIDR"));
    let cidrs: Vec<&str> =
        node.get("spec").map_or(&[] as &[Value], |s| list(s, "podCIDRs")).iter().filter_map(Value::as_str).collect();
    out.some(0, "PodCIDRs", &cidrs.join(","));
    out.some(0, "ProviderID", text_at(node, "/spec/providerID"));
    pods(status, &related.pods, now, out);
}

fn roles(node: &Value) -> String {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let roles: Vec<&str> = labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")).collect();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn taints(taints: &[Value]) -> Vec<String> {
    let show = |taint: &Value| match text(taint, "value") {
        "" => format!("{}:{}", text(taint, "key"), text(taint, "effect")),
        value => format!("{}={value}:{}", text(taint, "key"), text(taint, "effect")),
    };
    taints.iter().map(show).collect()
}

fn conditions(conditions: &[Value], out: &mut Text) {
    if conditions.is_empty() {
        return;
    }
    out.line(0, "Conditions:");
    out.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    out.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for c in conditions {
        let of = |field: &str| text(c, field);
        let (heartbeat, transition) = (when(of("lastHeartbeatTime")), when(of("lastTransitionTime")));
        let (kind, status, reason, message) = (of("type"), of("status"), of("reason"), of("message"));
        out.line(1, &format!("{kind} \t{status} \t{heartbeat} \t{transition} \t{reason} \t{message}"));
    }
}

fn system(status: &Value, out: &mut Text) {
    let info = status.get("nodeInfo").unwrap_or(&Value::Null);
    let fields = [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ];
    out.line(0, "System Info:");
    fields.iter().for_each(|(title, field)| out.field(1, title, text(info, field)));
}

const RESOURCES: [(&str, &str); 4] =
    [("requests", "cpu"), ("limits", "cpu"), ("requests", "memory"), ("limits", "memory")];

fn pods(status: &Value, pods: &[Value], now: Timestamp, out: &mut Text) {
    let running: Vec<&Value> =
        pods.iter().filter(|p| !matches!(text_at(p, "/status/phase"), "Succeeded" | "Failed")).collect();
    let share = |name: &str, amount: &Quantity| {
        let all = status.pointer("/allocatable").or_else(|| status.pointer("/capacity")).map_or("", |a| text(a, name));
        let all = Quantity::parse(all).unwrap_or_default().milli_value();
        let part = if all == 0 { 0.0 } else { amount.milli_value() as f64 / all as f64 * 100.0 };
        format!("{amount} ({}%)", part as i64)
    };
    out.field(0, "Non-terminated Pods", format!("({} in total)", running.len()));
    out.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    out.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    for pod in &running {
        let cells: Vec<String> = RESOURCES.iter().map(|(kind, name)| share(name, &of_pod(pod, kind, name))).collect();
        let age = time::since(text_at(pod, "/metadata/creationTimestamp"), now);
        let (namespace, name) = (text_at(pod, "/metadata/namespace"), text_at(pod, "/metadata/name"));
        out.line(1, &format!("{namespace}\t{name}\t\t{}\t{age}", cells.join("\t")));
    }
    out.line(0, "Allocated resources:");
    out.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    out.line(1, "Resource\tRequests\tLimits");
    out.line(1, "--------\t--------\t------");
    for name in ["cpu", "memory", "ephemeral-storage"] {
        let total = |kind: &str| {
            let mut total = Quantity::new(0, QuantityFormat::DecimalSi);
            running.iter().for_each(|pod| total.add(&of_pod(pod, kind, name)));
            share(name, &total)
        };
        out.line(1, &format!("{name}\t{}\t{}", total("requests"), total("limits")));
    }
}

/// What a pod asks for: the sum of its containers, or its largest init container.
fn of_pod(pod: &Value, kind: &str, name: &str) -> Quantity {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let of = |container: &Value| {
        let value = container.get("resources").and_then(|r| r.get(kind)).map_or("", |list| text(list, name));
        Quantity::parse(value).unwrap_or_default()
    };
    let mut sum = Quantity::default();
    list(spec, "containers").iter().for_each(|c| sum.add(&of(c)));
    list(spec, "initContainers").iter().map(of).fold(sum, |most, one| if one > most { one } else { most })
}
