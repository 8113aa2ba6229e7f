//! The pod's status as a kubelet reports it.

mod conditions;
mod containers;
mod phase;

use std::net::IpAddr;

use api::Timestamp;
use api::k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodIP, PodStatus};
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use conditions::PASSING;
pub use containers::container_id;

use crate::member::{Role, members};
use crate::observed::{Observed, Verdict};
use crate::qos::qos_class;

/// What a status needs to know of the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// Its addresses, primary family first.
    pub ips: Vec<IpAddr>,
}

/// `name_namespace(uid)`, as upstream writes a pod in messages.
pub fn pod_text(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

/// The status that follows from what was seen. `pod.status` supplies what others own: conditions, the nominated node,
/// the times of conditions that have not changed, and a phase that is over, which nothing changes.
pub fn status(pod: &Pod, seen: &Observed, node: &NodeFacts, now: Timestamp) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    if let Some(verdict) = seen.verdict.as_ref().filter(|v| v.rejected) {
        return rejected(pod, before, seen, verdict);
    }
    let list = |roles: &[Role]| containers::statuses(pod, seen, &before, now, roles);
    let init = list(&[Role::Init, Role::Sidecar]);
    let main = list(&[Role::Main]);
    let phase = phase::phase(pod, seen, &before, &init, &main);
    let all: Vec<ContainerStatus> = init.iter().chain(&main).cloned().collect();
    let mut status = PodStatus {
        conditions: Some(conditions::conditions(pod, seen, &before, &all, phase, now)),
        ephemeral_container_statuses: some(list(&[Role::Ephemeral])),
        phase: Some(phase.into()),
        ..before.clone()
    };
    keep_reason(&mut status, &before, seen, phase);
    common(&mut status, pod, seen);
    addresses(&mut status, pod, seen, node);
    (status.init_container_statuses, status.container_statuses) = (some(init), some(main));
    status
}

/// Reason and message belong to the phase.
fn keep_reason(status: &mut PodStatus, before: &PodStatus, seen: &Observed, phase: &str) {
    if before.phase.as_deref() != Some(phase) {
        (status.reason, status.message) = (None, None);
    }
    if let Some(verdict) = &seen.verdict {
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
    }
}

fn rejected(pod: &Pod, before: PodStatus, seen: &Observed, verdict: &Verdict) -> PodStatus {
    let mut status = PodStatus {
        phase: Some("Failed".into()),
        reason: Some(verdict.reason.clone()),
        message: Some(format!("Pod was rejected: {}", verdict.message)),
        ..before
    };
    common(&mut status, pod, seen);
    status
}

fn common(status: &mut PodStatus, pod: &Pod, seen: &Observed) {
    status.qos_class = Some(qos_class(pod).into());
    status.observed_generation = pod.metadata.generation;
    status.start_time = status.start_time.take().or(seen.started_at.map(Time));
}

/// A pod that has had addresses keeps showing them after its network is gone.
fn addresses(status: &mut PodStatus, pod: &Pod, seen: &Observed, node: &NodeFacts) {
    status.host_ip = node.ips.first().map(ToString::to_string);
    status.host_ips = some(node.ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
    let host = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let ips: &[IpAddr] = match seen.network.done() {
        Some(_) if host => &node.ips,
        Some(ips) => ips,
        None => return,
    };
    status.pod_ip = ips.first().map(ToString::to_string);
    status.pod_ips = some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The status of the container of that name.
fn named<'a>(list: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    list.iter().find(|s| s.name == name)
}

/// Whether the pod has init or sidecar containers: its containers then wait as `PodInitializing`.
fn has_init(pod: &Pod) -> bool {
    members(pod).iter().any(|m| matches!(m.role, Role::Init | Role::Sidecar))
}
