//! Whether the node takes a pod that was bound to it: the scheduler is not the only one who binds.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{Node, Pod};

use crate::limits::Totals;
use crate::observed::Verdict;
use crate::qos::{milli, whole};

/// Judges `pod` beside the pods that already count on the node; `None` means it is taken. The first failure counts, in
/// upstream's order (`pkg/kubelet/lifecycle/predicate.go`).
pub fn admit(pod: &Pod, others: &[Pod], node: &Node) -> Option<Verdict> {
    let active: Vec<&Pod> = others.iter().filter(|p| p.metadata.uid != pod.metadata.uid && counts(p)).collect();
    resources(pod, &active, node)
        .or_else(|| selector(pod, node))
        .or_else(|| ports(pod, &active))
        .map(|(reason, message)| Verdict { reason, message, rejected: true })
}

/// Judges changed resources of a pod that runs: the reason (`Infeasible`: never on this node, or `Deferred`) and message
/// of a refusal.
pub fn resize(pod: &Pod, others: &[Pod], node: &Node) -> Option<(&'static str, String)> {
    let active: Vec<&Pod> = others.iter().filter(|p| p.metadata.uid != pod.metadata.uid && counts(p)).collect();
    let (_, message) = resources(pod, &active, node)?;
    Some((if resources(pod, &[], node).is_some() { "Infeasible" } else { "Deferred" }, message))
}

/// A pod that has ended holds nothing.
fn counts(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

type Refusal = (String, String);

fn resources(pod: &Pod, others: &[&Pod], node: &Node) -> Option<Refusal> {
    let allocatable = node.status.as_ref().map(|s| s.allocatable.clone()).unwrap_or_default();
    let pods = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let room = whole(&allocatable, "pods").unwrap_or(i64::MAX);
    if pods >= room {
        return Some(short("pods", 1, pods, room));
    }
    let wish = Totals::of(pod);
    let used: Vec<Totals> = others.iter().map(|p| Totals::of(p)).collect();
    let sum = |of: fn(&Totals) -> i64| used.iter().map(of).sum::<i64>();
    let cpu = milli(&allocatable, "cpu").unwrap_or(i64::MAX);
    let memory = whole(&allocatable, "memory").unwrap_or(i64::MAX);
    let storage = whole(&allocatable, "ephemeral-storage").unwrap_or(i64::MAX);
    [
        ("cpu", wish.cpu_request, sum(|t| t.cpu_request), cpu),
        ("memory", wish.memory_request, sum(|t| t.memory_request), memory),
        ("ephemeral-storage", wish.storage_request, sum(|t| t.storage_request), storage),
    ]
    .into_iter()
    .find(|(_, wish, used, room)| *wish > 0 && wish.saturating_add(*used) > *room)
    .map(|(name, wish, used, room)| short(name, wish, used, room))
}

fn short(name: &str, wish: i64, used: i64, room: i64) -> Refusal {
    let message =
        format!("Node didn't have enough resource: {name}, requested: {wish}, used: {used}, capacity: {room}");
    (format!("OutOf{name}"), message)
}

fn selector(pod: &Pod, node: &Node) -> Option<Refusal> {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let wanted = pod.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    let fits = wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let refusal = || {
        (
            "NodeAffinity".to_owned(),
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".to_owned(),
        )
    };
    (!fits).then(refusal)
}

/// Two pods cannot hold the same host port.
fn ports(pod: &Pod, others: &[&Pod]) -> Option<Refusal> {
    let taken: Vec<HostPort> = others.iter().flat_map(|p| host_ports(p)).collect();
    let clash = host_ports(pod).iter().any(|p| taken.iter().any(|t| p.clashes(t)));
    let refusal = || {
        (
            "NodePorts".to_owned(),
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".to_owned(),
        )
    };
    clash.then(refusal)
}

struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    fn clashes(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        let same_ip = self.ip == other.ip || any(&self.ip) || any(&other.ip);
        self.port == other.port && self.protocol == other.protocol && same_ip
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let spec = pod.spec.clone().unwrap_or_default();
    let ports =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|port| *port > 0)?;
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some(HostPort { ip: p.host_ip.clone().unwrap_or_default(), protocol, port })
        })
        .collect()
}
