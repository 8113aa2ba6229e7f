//! Requests and limits as cgroup limits.

use api::k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

use crate::member::{Role, members};
use crate::qos::{milli, whole};

/// The period of a cpu quota, in microseconds.
const PERIOD_US: i64 = 100_000;
/// The smallest quota that the kernel takes, in microseconds.
const MIN_QUOTA_US: i64 = 1_000;
/// The fewest shares.
const MIN_SHARES: i64 = 2;
/// Processes a pod may have: far more than any needs, far fewer than a machine has.
const POD_PIDS: i64 = 16_384;

/// Limits of a container.
pub fn of_container(container: &Container) -> LinuxResources {
    let resources = container.resources.clone().unwrap_or_default();
    let request = milli(&resources.requests, "cpu").or_else(|| milli(&resources.limits, "cpu"));
    let mut out = LinuxResources::default();
    out.set_cpu(Some(cpu(request.unwrap_or(0), milli(&resources.limits, "cpu"))));
    out.set_memory(whole(&resources.limits, "memory").filter(|b| *b > 0).map(memory));
    out.set_hugepage_limits(huge_pages(&resources));
    out
}

/// Limits of the pod's cgroup: requests in sum; a limit only where every container has one.
pub fn of_pod(pod: &Pod) -> LinuxResources {
    let totals = Totals::of(pod);
    let mut out = LinuxResources::default();
    out.set_cpu(Some(cpu(totals.cpu_request, totals.cpu_limit)));
    out.set_memory(totals.memory_limit.filter(|b| *b > 0).map(memory));
    let mut pids = LinuxPids::default();
    pids.set_limit(POD_PIDS);
    out.set_pids(Some(pids));
    out
}

fn cpu(request_milli: i64, limit_milli: Option<i64>) -> LinuxCpu {
    let mut cpu = LinuxCpu::default();
    let shares = (request_milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, 262_144);
    cpu.set_shares(u64::try_from(shares).ok());
    if let Some(limit) = limit_milli.filter(|l| *l > 0) {
        cpu.set_quota(Some((limit.saturating_mul(PERIOD_US) / 1000).max(MIN_QUOTA_US)));
        cpu.set_period(u64::try_from(PERIOD_US).ok());
    }
    cpu
}

fn memory(limit: i64) -> LinuxMemory {
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(limit));
    memory
}

fn huge_pages(resources: &ResourceRequirements) -> Option<Vec<LinuxHugepageLimit>> {
    let limits: Vec<LinuxHugepageLimit> = resources
        .limits
        .iter()
        .flatten()
        .filter_map(|(name, _)| {
            let size = name.strip_prefix("hugepages-")?;
            let mut limit = LinuxHugepageLimit::default();
            limit.set_page_size(format!("{}B", size.trim_end_matches('i')));
            limit.set_limit(whole(&resources.limits, name)?);
            Some(limit)
        })
        .collect();
    (!limits.is_empty()).then_some(limits)
}

/// What a pod asks for and may use in all: the larger of its start-up and its running needs (KEP-753), plus overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Totals {
    pub cpu_request: i64,
    pub cpu_limit: Option<i64>,
    pub memory_request: i64,
    pub memory_limit: Option<i64>,
    pub storage_request: i64,
}

impl Totals {
    /// Milli-cpus and bytes.
    pub fn of(pod: &Pod) -> Self {
        let amount = |limits: bool, name: &str| total(pod, limits, name);
        let own = pod.spec.as_ref().and_then(|s| s.resources.clone()).unwrap_or_default();
        Self {
            cpu_request: milli(&own.requests, "cpu").or_else(|| amount(false, "cpu")).unwrap_or(0),
            cpu_limit: milli(&own.limits, "cpu").or_else(|| amount(true, "cpu")),
            memory_request: whole(&own.requests, "memory").or_else(|| amount(false, "memory")).unwrap_or(0),
            memory_limit: whole(&own.limits, "memory").or_else(|| amount(true, "memory")),
            storage_request: amount(false, "ephemeral-storage").unwrap_or(0),
        }
    }
}

/// A pod's request or limit of one resource (cpu in thousandths); a limit is `None` where a container has none.
fn total(pod: &Pod, limits: bool, name: &str) -> Option<i64> {
    let (mut running, mut sidecars, mut peak) = (0_i64, 0_i64, 0_i64);
    for member in members(pod) {
        let amount = match amount(&member.container, limits, name) {
            None if limits && member.role == Role::Ephemeral => 0,
            None if limits => return None,
            amount => amount.unwrap_or(0),
        };
        match member.role {
            Role::Main => running = running.saturating_add(amount),
            Role::Sidecar => {
                sidecars = sidecars.saturating_add(amount);
                peak = peak.max(sidecars);
            }
            Role::Init => peak = peak.max(sidecars.saturating_add(amount)),
            Role::Ephemeral => {}
        }
    }
    let overhead = pod.spec.as_ref().and_then(|s| in_units(&s.overhead, name)).unwrap_or(0);
    Some(running.saturating_add(sidecars).max(peak).saturating_add(overhead))
}

fn amount(container: &Container, limits: bool, name: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    in_units(if limits { &resources.limits } else { &resources.requests }, name)
}

fn in_units(list: &crate::qos::Amounts, name: &str) -> Option<i64> {
    if name == "cpu" { milli(list, name) } else { whole(list, name) }
}
