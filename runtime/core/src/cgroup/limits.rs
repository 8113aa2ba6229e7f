//! OCI resources as control files, for v1 and v2 (config-linux.md; the conversions are those all runtimes agree on).

use std::os::fd::BorrowedFd;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{device_program, read, write};
use crate::{Error, Result};

/// One file to write.
struct Setting {
    controller: &'static str,
    field: &'static str,
    /// (v1 file, text), if v1 has such a thing.
    v1: Option<(String, String)>,
    v2: Option<(String, String)>,
}

/// Writes all limits that are set.
pub(super) fn apply<'a>(
    resources: &LinuxResources,
    controller: &dyn Fn(&str) -> Option<(BorrowedFd<'a>, bool)>,
) -> Result<()> {
    if let Some(rules) = resources.devices() {
        apply_devices(rules, controller)?;
    }
    if let Some(memory) = resources.memory() {
        apply_memory(memory, controller)?;
    }
    let mut settings = Vec::new();
    if let Some(cpu) = resources.cpu() {
        settings.extend(cpu_settings(cpu));
    }
    if let Some(pids) = resources.pids() {
        let text = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
        settings.push(same("pids", "pids.limit", "pids.max", text));
    }
    for page in resources.hugepage_limits().as_deref().unwrap_or_default() {
        let (size, limit) = (page.page_size(), page.limit().to_string());
        settings.push(Setting {
            controller: "hugetlb",
            field: "hugepageLimits",
            v1: Some((format!("hugetlb.{size}.limit_in_bytes"), limit.clone())),
            v2: Some((format!("hugetlb.{size}.max"), limit)),
        });
    }
    settings.iter().try_for_each(|setting| put(setting, controller))?;
    for (file, text) in resources.unified().iter().flatten() {
        let name = file.split('.').next().unwrap_or_default();
        if file.contains('/') {
            return Err(Error::Invalid(format!("linux.resources.unified: {file:?} is not a file")));
        }
        match controller(name) {
            Some((dir, true)) => write_setting(dir, "unified", file, text)?,
            _ => return Err(missing("unified", name)),
        }
    }
    Ok(())
}

fn same(controller: &'static str, field: &'static str, file: &str, text: String) -> Setting {
    Setting { controller, field, v1: Some((file.to_owned(), text.clone())), v2: Some((file.to_owned(), text)) }
}

fn put<'a>(setting: &Setting, controller: &dyn Fn(&str) -> Option<(BorrowedFd<'a>, bool)>) -> Result<()> {
    let Some((dir, v2)) = controller(setting.controller) else {
        return Err(missing(setting.field, setting.controller));
    };
    match if v2 { &setting.v2 } else { &setting.v1 } {
        Some((file, text)) => write_setting(dir, setting.field, file, text),
        None => Ok(()),
    }
}

fn write_setting(dir: BorrowedFd<'_>, field: &str, file: &str, text: &str) -> Result<()> {
    write(dir, file, text).map_err(|e| Error::System(format!("linux.resources.{field}: write {text} to {file}"), e))
}

fn missing(field: &str, controller: &str) -> Error {
    Error::Invalid(format!("linux.resources.{field}: this host has no {controller} cgroup controller"))
}

fn cpu_settings(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut settings = Vec::new();
    let v1_only = |field, file: &str, text: String| Setting {
        controller: "cpu",
        field,
        v1: Some((file.to_owned(), text)),
        v2: None,
    };
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        settings.push(Setting {
            controller: "cpu",
            field: "cpu.shares",
            v1: Some(("cpu.shares".to_owned(), shares.to_string())),
            v2: Some(("cpu.weight".to_owned(), weight(shares).to_string())),
        });
    }
    // The period first: a quota must fit into it.
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        settings.push(v1_only("cpu.period", "cpu.cfs_period_us", period.to_string()));
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        settings.push(v1_only("cpu.quota", "cpu.cfs_quota_us", quota.max(-1).to_string()));
    }
    if cpu.quota().is_some_and(|q| q != 0) || cpu.period().is_some_and(|p| p != 0) {
        let quota = cpu.quota().filter(|q| *q > 0).map_or_else(|| "max".to_owned(), |q| q.to_string());
        let text = format!("{quota} {}", cpu.period().filter(|p| *p != 0).unwrap_or(100_000));
        settings.push(Setting {
            controller: "cpu",
            field: "cpu.quota",
            v1: None,
            v2: Some(("cpu.max".to_owned(), text)),
        });
    }
    if let Some(burst) = cpu.burst() {
        settings.push(Setting {
            controller: "cpu",
            field: "cpu.burst",
            v1: Some(("cpu.cfs_burst_us".to_owned(), burst.to_string())),
            v2: Some(("cpu.max.burst".to_owned(), burst.to_string())),
        });
    }
    if let Some(idle) = cpu.idle() {
        settings.push(same("cpu", "cpu.idle", "cpu.idle", idle.to_string()));
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
        settings.push(same("cpuset", "cpu.cpus", "cpuset.cpus", cpus.clone()));
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
        settings.push(same("cpuset", "cpu.mems", "cpuset.mems", mems.clone()));
    }
    settings
}

/// v1's shares (2 to 262144, default 1024) as v2's weight (1 to 10000, default 100): a quadratic in log2 through
/// (2, 1), (1024, 100) and (262144, 10000), as runc and crun do since 2025.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn apply_memory<'a>(memory: &LinuxMemory, controller: &dyn Fn(&str) -> Option<(BorrowedFd<'a>, bool)>) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    let reservation = memory.reservation().filter(|r| *r != 0);
    if limit.is_none() && swap.is_none() && reservation.is_none() {
        return Ok(());
    }
    let Some((dir, v2)) = controller("memory") else { return Err(missing("memory.limit", "memory")) };
    if v2 {
        let max = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
        if let Some(swap) = swap {
            let only = if swap < 0 { swap } else { swap - limit.unwrap_or(0).max(0) };
            write_setting(dir, "memory.swap", "memory.swap.max", &max(only))?;
        }
        if let Some(limit) = limit {
            write_setting(dir, "memory.limit", "memory.max", &max(limit))?;
        }
        return reservation.map_or(Ok(()), |r| write_setting(dir, "memory.reservation", "memory.low", &max(r)));
    }
    memory_v1(dir, limit, swap)?;
    reservation.map_or(Ok(()), |r| {
        write_setting(dir, "memory.reservation", "memory.soft_limit_in_bytes", &r.max(-1).to_string())
    })
}

/// v1 wants memory plus swap never below memory, so the order depends on which way the limits move.
fn memory_v1(dir: BorrowedFd<'_>, limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    let set_limit = || match limit {
        Some(limit) => write_setting(dir, "memory.limit", "memory.limit_in_bytes", &limit.max(-1).to_string()),
        None => Ok(()),
    };
    let set_swap = || match swap {
        Some(swap) => write_setting(dir, "memory.swap", "memory.memsw.limit_in_bytes", &swap.max(-1).to_string()),
        None => Ok(()),
    };
    let now = read(dir, "memory.memsw.limit_in_bytes").ok().and_then(|text| text.trim().parse::<u64>().ok());
    match (swap, now) {
        // No swap accounting in this kernel: a limit that allows no swap at all is met without.
        (Some(_), None) => set_limit(),
        (Some(new), Some(now)) if new < 0 || u64::try_from(new).is_ok_and(|new| new > now) => {
            set_swap().and_then(|()| set_limit())
        }
        _ => set_limit().and_then(|()| set_swap()),
    }
}

fn apply_devices<'a>(
    rules: &[oci_spec::runtime::LinuxDeviceCgroup],
    controller: &dyn Fn(&str) -> Option<(BorrowedFd<'a>, bool)>,
) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let Some((dir, v2)) = controller("devices") else {
        return Err(missing("devices", "devices"));
    };
    let rules: Vec<_> = rules.iter().cloned().chain(device_program::defaults()).collect();
    if v2 {
        let code = device_program::compile(&rules)?;
        return crate::sys::attach_device_program(dir, &code)
            .map_err(|e| Error::System("linux.resources.devices: attach the program".to_owned(), e));
    }
    for rule in &rules {
        let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
        write_setting(dir, "devices", file, &device_program::v1_text(rule))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, want) in
            [(0, 1), (2, 1), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000), (999_999, 10_000)]
        {
            assert_eq!(weight(shares), want, "{shares}");
        }
    }
}
