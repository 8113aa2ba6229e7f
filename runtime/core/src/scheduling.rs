//! How the kernel schedules a process: policy, input and output, CPUs, memory nodes. Read in the parent, set by the child.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::sys::{self, SchedulerAttributes};
use crate::{Error, Result, failed};

/// The highest number of a memory node, and more than any kernel has.
const MAX_NODES: usize = 1024;

/// What a process asks for.
#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    policy: Option<SchedulerAttributes>,
    io_priority: Option<i32>,
    /// CPUs before the process is in its cgroup.
    initial: Option<CpuSet>,
    /// CPUs afterwards. `None`: all that the cgroup allows.
    last: Option<CpuSet>,
    memory: Option<MemoryPolicy>,
}

/// Mode with flags, and a bit for each node.
#[derive(Debug, PartialEq, Eq)]
struct MemoryPolicy {
    mode: i32,
    nodes: Vec<u64>,
}

impl Scheduling {
    /// Reads `process`.
    pub(crate) fn of(process: &Process) -> Result<Self> {
        let affinity = process.exec_cpu_affinity().as_ref();
        let set = |list: fn(&ExecCPUAffinity) -> &Option<String>| {
            let list = affinity.and_then(|a| list(a).as_deref()).filter(|list| !list.is_empty());
            list.map(|list| cpu_set("process.execCPUAffinity", list)).transpose()
        };
        Ok(Self {
            policy: process.scheduler().as_ref().map(attributes).transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            initial: set(ExecCPUAffinity::initial)?,
            last: set(ExecCPUAffinity::cpu_affinity_final)?,
            memory: None,
        })
    }

    /// The CPUs before the process is in its cgroup, as a mask of the first 64.
    pub(crate) fn initial_mask(&self) -> Option<u64> {
        let set = self.initial.as_ref()?;
        Some((0..64).filter(|cpu| set.is_set(*cpu)).fold(0, |mask, cpu| mask | 1 << cpu))
    }

    /// A container's first process goes where its cgroup lets it: `execCPUAffinity` is for others.
    pub(crate) fn forget_affinity(&mut self) {
        (self.initial, self.last) = (None, None);
    }

    pub(crate) fn set_memory(&mut self, policy: &LinuxMemoryPolicy) -> Result<()> {
        self.memory = Some(memory_policy(policy)?);
        Ok(())
    }

    /// What goes before the process is in its cgroup.
    pub(crate) fn begin(&self) -> Result<()> {
        let Some(set) = &self.initial else { return Ok(()) };
        sched_setaffinity(None, set).map_err(failed(|| "process.execCPUAffinity.initial: set".to_owned()))
    }

    /// Everything else; in the cgroup, and with the capabilities of setup.
    pub(crate) fn apply(&self) -> Result<()> {
        self.spread()?;
        if let Some(memory) = &self.memory {
            sys::set_memory_policy(memory.mode, &memory.nodes)
                .map_err(|e| Error::System("linux.memoryPolicy: set".to_owned(), e))?;
        }
        if let Some(priority) = self.io_priority {
            sys::set_io_priority(priority).map_err(|e| Error::System("process.ioPriority: set".to_owned(), e))?;
        }
        if let Some(attributes) = &self.policy {
            sys::set_scheduler(attributes)
                .map_err(|e| Error::System("process.scheduler: sched_setattr".to_owned(), e))?;
        }
        Ok(())
    }

    /// The CPUs asked for, or else all of the cgroup's: not those of whoever called us.
    fn spread(&self) -> Result<()> {
        let what = || "process.execCPUAffinity.final: set".to_owned();
        match (&self.last, &self.initial) {
            (Some(set), _) => sched_setaffinity(None, set).map_err(failed(what)),
            (None, Some(_)) => Ok(()),
            (None, None) => {
                let mut all = CpuSet::new();
                (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
                match sched_setaffinity(None, &all) {
                    Ok(()) | Err(Errno::INVAL | Errno::PERM) => Ok(()),
                    Err(e) => Err(failed(what)(e)),
                }
            }
        }
    }
}

fn attributes(scheduler: &Scheduler) -> Result<SchedulerAttributes> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let deadline = *scheduler.policy() == LinuxSchedulerPolicy::SchedDeadline;
    let [runtime, last, period] = [*scheduler.runtime(), *scheduler.deadline(), *scheduler.period()];
    let invalid = |what: String| Err(Error::Invalid(format!("process.scheduler: sched_setattr: {what}")));
    if deadline && let Some(what) = bad_deadline(runtime, last, period) {
        return invalid(format!("`SCHED_DEADLINE` {what}"));
    }
    let (runtime, last, period) = (runtime.unwrap_or(0), last.unwrap_or(0), period.unwrap_or(0));
    let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| flags | flag_bit(*flag));
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..20).contains(&nice) {
        return invalid(format!("nice value {nice} is not in -20 to 19"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    let real_time = matches!(scheduler.policy(), LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr);
    let Some(priority) =
        u32::try_from(priority).ok().filter(|p| if real_time { (1..100).contains(p) } else { *p == 0 })
    else {
        return invalid(format!("priority {priority} does not go with {}", scheduler.policy()));
    };
    Ok(SchedulerAttributes { policy, flags, nice, priority, runtime, deadline: last, period, ..Default::default() })
}

/// What is wrong with the times of a deadline policy, in nanoseconds: to the kernel all of it is one error (sched(7)).
fn bad_deadline(runtime: Option<u64>, deadline: Option<u64>, period: Option<u64>) -> Option<String> {
    const RUNTIME: std::ops::RangeInclusive<u64> = 1024..=i64::MAX as u64;
    let Some(runtime) = runtime else { return Some("requires `runtime`".to_owned()) };
    let Some(deadline) = deadline else { return Some("requires `deadline`".to_owned()) };
    let period = period.filter(|period| *period != 0);
    if runtime == 0 {
        return Some("runtime must be greater than 0".to_owned());
    }
    if !RUNTIME.contains(&runtime) {
        return Some(format!("runtime {runtime} must be between {} and {}", RUNTIME.start(), RUNTIME.end()));
    }
    if runtime > deadline {
        return Some(format!("runtime {runtime} must be <= deadline {deadline}"));
    }
    let period = period.filter(|period| deadline > *period)?;
    Some(format!("deadline {deadline} must be <= period {period}"))
}

/// SCHED_FLAG_* of linux/sched.h.
fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// Class and level in one number (linux/ioprio.h).
fn io_priority(priority: &LinuxIOPriority) -> Result<i32> {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match i32::try_from(priority.priority()) {
        Ok(level @ 0..8) => Ok(class << 13 | level),
        _ => Err(Error::Invalid(format!("process.ioPriority.priority: {} is not in 0 to 7", priority.priority()))),
    }
}

fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            }
    });
    let listed = policy.nodes().as_deref().unwrap_or_default();
    let listed = numbers(listed, MAX_NODES)
        .map_err(|what| Error::Invalid(format!("linux.memoryPolicy.nodes: invalid memory policy node: {what}")))?;
    let takes_none = matches!(policy.mode(), MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal);
    if takes_none && !listed.is_empty() {
        let what = format!("linux.memoryPolicy: {} mode requires 0 nodes but got {}", policy.mode(), listed.len());
        return Err(Error::Invalid(what));
    }
    let mut nodes = vec![0u64; listed.iter().max().map_or(0, |highest| highest / 64 + 1)];
    for node in listed {
        if let Some(word) = nodes.get_mut(node / 64) {
            *word |= 1 << (node % 64);
        }
    }
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

fn cpu_set(field: &str, list: &str) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    let cpus = numbers(list, CpuSet::MAX_CPU).map_err(|what| Error::Invalid(format!("{field}: {what}")))?;
    cpus.into_iter().for_each(|cpu| set.set(cpu));
    Ok(set)
}

/// `0-2,7` as numbers, each below a bound.
fn numbers(list: &str, bound: usize) -> std::result::Result<Vec<usize>, String> {
    let mut all = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last && last < bound => all.extend(first..=last),
            _ => return Err(format!("{part:?} is no number or range below {bound}")),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbers_and_ranges() {
        assert_eq!(numbers("0-2, 7", 8), Ok(vec![0, 1, 2, 7]));
        assert_eq!(numbers("", 8), Ok(vec![]));
        for bad in ["8", "3-1", "x", "1-", "-1", "0-9876543210"] {
            assert!(numbers(bad, 8).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_that_the_kernel_would_misread_is_refused() {
        let read = |json: &str| attributes(&serde_json::from_str(json).unwrap());
        let deadline = read(r#"{"policy":"SCHED_DEADLINE","runtime":2000,"deadline":3000,"period":4000}"#).unwrap();
        assert_eq!((deadline.policy, deadline.runtime, deadline.deadline, deadline.period), (6, 2000, 3000, 4000));
        assert_eq!(read(r#"{"policy":"SCHED_FIFO","priority":10}"#).unwrap().priority, 10);
        for bad in [
            r#"{"policy":"SCHED_DEADLINE","deadline":2000,"period":3000}"#,
            r#"{"policy":"SCHED_DEADLINE","runtime":3000,"deadline":2000}"#,
            r#"{"policy":"SCHED_DEADLINE","runtime":3,"deadline":2000}"#,
            r#"{"policy":"SCHED_DEADLINE","runtime":2000,"deadline":5000,"period":4000}"#,
            r#"{"policy":"SCHED_FIFO"}"#,
            r#"{"policy":"SCHED_OTHER","priority":1}"#,
            r#"{"policy":"SCHED_OTHER","nice":20}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_policies_have_a_mask_of_nodes() {
        let read = |json: &str| memory_policy(&serde_json::from_str(json).unwrap());
        let bound = read(r#"{"mode":"MPOL_BIND","nodes":"0,65","flags":["MPOL_F_STATIC_NODES"]}"#).unwrap();
        assert_eq!(bound, MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![1, 2] });
        assert!(read(r#"{"mode":"MPOL_DEFAULT","nodes":"0-7"}"#).is_err());
        let io = |class, level: i64| {
            let json = serde_json::json!({"class": class, "priority": level});
            io_priority(&serde_json::from_value(json).unwrap()).ok()
        };
        assert_eq!(io("IOPRIO_CLASS_BE", 4), Some(2 << 13 | 4));
        assert_eq!(io("IOPRIO_CLASS_BE", 8), None);
    }
}
