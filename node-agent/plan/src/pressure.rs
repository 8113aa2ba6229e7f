//! What the node does when its memory or disk runs short: it says so, takes in no more, and ends one pod at a time
//! (kubelet's eviction manager with its hard thresholds).

use std::cmp::Reverse;

use api::k8s_openapi::api::core::v1::{Container, Pod};

use crate::limits::Totals;
use crate::member::members;
use crate::observed::Verdict;
use crate::qos::{qos_class, quantity_of, whole};

/// The reason of an evicted pod.
pub const EVICTED: &str = "Evicted";
/// Priority from which on a pod is never evicted (`scheduling.SystemCriticalPriority`).
const CRITICAL: i32 = 2_000_000_000;
/// `memory.available<100Mi`.
const MEMORY_BYTES: u64 = 100 << 20;
/// `nodefs.available<10%`.
const DISK_PERCENT: u64 = 10;

/// Something that can run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Resource {
    Memory,
    Disk,
}

impl Resource {
    /// As requests name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
        }
    }

    /// The node's condition while it is short.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
        }
    }
}

/// Bytes of a resource on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Level {
    pub resource: Resource,
    pub available: u64,
    pub size: u64,
}

impl Level {
    /// Below how many available bytes the resource is short.
    pub fn threshold(&self) -> u64 {
        match self.resource {
            Resource::Memory => MEMORY_BYTES,
            Resource::Disk => self.size / 100 * DISK_PERCENT,
        }
    }

    /// Whether it is.
    pub fn is_short(&self) -> bool {
        self.size > 0 && self.available < self.threshold()
    }
}

/// Bytes of the short resource that a pod uses, and each of its containers.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Usage {
    pub total: u64,
    pub containers: Vec<(String, u64)>,
}

/// The pod to end: first those that use more than they asked for, of these the least important, of these the one that
/// exceeds its request most.
pub fn victim<'a>(level: &Level, pods: &'a [(Pod, Usage)]) -> Option<(&'a Pod, Verdict)> {
    let rank = |(pod, usage): &&(Pod, Usage)| {
        let totals = Totals::of(pod);
        let request = match level.resource {
            Resource::Memory => totals.memory_request,
            Resource::Disk => totals.storage_request,
        };
        let over = i128::from(usage.total) - i128::from(request);
        (over <= 0, pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0), Reverse(over))
    };
    let (pod, usage) = pods.iter().filter(|(pod, _)| !critical(pod)).min_by_key(rank)?;
    Some((pod, Verdict { reason: EVICTED.into(), message: message(level, pod, usage), rejected: false }))
}

fn critical(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|priority| priority >= CRITICAL)
}

fn message(level: &Level, pod: &Pod, usage: &Usage) -> String {
    let name = level.resource.name();
    let (threshold, available) = (binary(level.threshold()), binary(level.available));
    let mut text =
        format!("The node was low on resource: {name}. Threshold quantity: {threshold}, available: {available}. ");
    let members = members(pod);
    for (container, used) in &usage.containers {
        let Some(member) = members.iter().find(|m| m.name() == container) else { continue };
        let request = request(&member.container, name);
        if i128::from(*used) > i128::from(whole(&requests(&member.container), name).unwrap_or(0)) {
            let used = binary(*used);
            text.push_str(&format!(
                "Container {container} was using {used}, request is {request}, has larger consumption of {name}. "
            ));
        }
    }
    text
}

fn requests(container: &Container) -> crate::qos::Amounts {
    container.resources.as_ref().and_then(|r| r.requests.clone())
}

fn request(container: &Container, name: &str) -> String {
    quantity_of(&requests(container), name).map_or_else(|| "0".into(), |q| q.to_string())
}

/// Bytes as a canonical quantity: `100Mi`, `1536Ki`, `1001`.
fn binary(bytes: u64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti"];
    let mut left = (bytes, 0);
    while left.0 > 0 && left.0.is_multiple_of(1024) && left.1 + 1 < units.len() {
        left = (left.0 / 1024, left.1 + 1);
    }
    format!("{}{}", left.0, units.get(left.1).copied().unwrap_or_default())
}

/// Whether a node in need takes a pod: a critical one always; for want of memory alone, one that asks for some.
pub fn admit(pod: &Pod, short: &[Resource]) -> Option<Verdict> {
    let modest = short == [Resource::Memory] && (qos_class(pod) != "BestEffort" || tolerates(pod));
    if short.is_empty() || critical(pod) || modest {
        return None;
    }
    let conditions: Vec<&str> = short.iter().map(|r| r.condition()).collect();
    let message = format!("The node had condition: [{}]. ", conditions.join(" "));
    Some(Verdict { reason: EVICTED.into(), message, rejected: true })
}

fn tolerates(pod: &Pod) -> bool {
    let fits = |value: &Option<String>, wanted: &str| value.as_deref().is_none_or(|v| v.is_empty() || v == wanted);
    let list = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    list.iter().any(|t| {
        let exists = t.operator.as_deref() == Some("Exists");
        fits(&t.effect, "NoSchedule")
            && match t.key.as_deref().unwrap_or_default() {
                "" => exists,
                key => key == "node.kubernetes.io/memory-pressure" && (exists || fits(&t.value, "")),
            }
    })
}
