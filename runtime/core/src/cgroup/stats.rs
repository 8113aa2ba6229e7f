//! What a cgroup uses.

use std::os::fd::BorrowedFd;

use super::read as read_file;
pub(crate) use crate::pod::Stats;

/// Reads the usage. What the host does not count stays zero.
pub(super) fn read<'a>(controller: &dyn Fn(&str) -> Option<(BorrowedFd<'a>, bool)>) -> Stats {
    let number = |name: &str, v1: &str, v2: &str| {
        let (dir, is_v2) = controller(name)?;
        read_file(dir, if is_v2 { v2 } else { v1 }).ok()?.trim().parse::<u64>().ok()
    };
    let memory_usage_bytes = number("memory", "memory.usage_in_bytes", "memory.current").unwrap_or(0);
    Stats {
        cpu_usage_ns: cpu(controller).unwrap_or(0),
        memory_usage_bytes,
        memory_working_set_bytes: memory_usage_bytes.saturating_sub(inactive(controller).unwrap_or(0)),
        pids: number("pids", "pids.current", "pids.current").unwrap_or(0),
    }
}

fn cpu<'a>(controller: &dyn Fn(&str) -> Option<(BorrowedFd<'a>, bool)>) -> Option<u64> {
    match controller("cpuacct") {
        Some((dir, false)) => read_file(dir, "cpuacct.usage").ok()?.trim().parse().ok(),
        _ => field(&read_file(controller("cpu")?.0, "cpu.stat").ok()?, "usage_usec").map(|us| us * 1000),
    }
}

/// Page cache that can go at any time is not counted as needed, as cAdvisor does.
fn inactive<'a>(controller: &dyn Fn(&str) -> Option<(BorrowedFd<'a>, bool)>) -> Option<u64> {
    let (dir, v2) = controller("memory")?;
    field(&read_file(dir, "memory.stat").ok()?, if v2 { "inactive_file" } else { "total_inactive_file" })
}

/// A field of a file of `name value` lines.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
