//! Quality of service: the class, the place in the cgroup tree, and who is killed first when memory runs out.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A resource list as the API has it.
pub type Amounts = Option<BTreeMap<String, Quantity>>;

/// The amount of a resource in whole units, rounded up.
pub fn whole(list: &Amounts, name: &str) -> Option<i64> {
    quantity_of(list, name).map(|q| q.value())
}

/// The amount of a resource in thousandths, rounded up.
pub fn milli(list: &Amounts, name: &str) -> Option<i64> {
    quantity_of(list, name).map(|q| q.milli_value())
}

/// The amount of a resource.
pub fn quantity_of(list: &Amounts, name: &str) -> Option<api::Quantity> {
    list.as_ref().and_then(|l| l.get(name)).and_then(|q| api::Quantity::parse(&q.0).ok())
}

/// `Guaranteed`, `Burstable` or `BestEffort` (`pkg/apis/core/v1/helper/qos`).
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    if let Some(whole_pod) = spec.resources.as_ref().filter(|r| asks(r)) {
        return if guaranteed(whole_pod) { "Guaranteed" } else { "Burstable" };
    }
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| &c.resources);
    if all.clone().all(|r| r.as_ref().is_none_or(|r| !asks(r))) {
        return "BestEffort";
    }
    if all.all(|r| r.as_ref().is_some_and(guaranteed)) { "Guaranteed" } else { "Burstable" }
}

/// Asks for some cpu or memory.
fn asks(resources: &ResourceRequirements) -> bool {
    let positive = |list: &Amounts, name| milli(list, name).is_some_and(|v| v > 0);
    ["cpu", "memory"].iter().any(|n| positive(&resources.requests, n) || positive(&resources.limits, n))
}

/// Limits for both, and requests (if any) that equal them.
fn guaranteed(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = milli(&resources.limits, name).filter(|v| *v > 0);
        limit.is_some() && milli(&resources.requests, name).is_none_or(|r| Some(r) == limit)
    })
}

/// The pod's cgroup below `root`: guaranteed pods stand directly in it, the others in their class.
pub fn cgroup(root: &str, pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    match qos_class(pod) {
        "Guaranteed" => format!("{root}/pod{uid}"),
        class => format!("{root}/{}/pod{uid}", class.to_ascii_lowercase()),
    }
}

/// `oom_score_adj` of a container's processes (`pkg/kubelet/qos/policy.go`).
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity_bytes: i64) -> i32 {
    const CRITICAL: i32 = 2_000_000_000;
    if pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= CRITICAL) {
        return -997;
    }
    match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => burstable(container, memory_capacity_bytes),
    }
}

fn burstable(container: &Container, capacity: i64) -> i32 {
    let request = container.resources.as_ref().and_then(|r| whole(&r.requests, "memory")).unwrap_or(0);
    let share = i128::from(request) * 1000 / i128::from(capacity.max(1));
    i32::try_from(1000 - share).unwrap_or(0).clamp(3, 999)
}
