//! OCI resources as control files, for v1 and v2 (config-linux.md; the conversions are those all runtimes agree on).
//! What is to be written is a list of [`Setting`]s; one loop writes them all.

mod memory;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxNetwork, LinuxRdma, LinuxResources, LinuxThrottleDevice,
};

use super::{device_program, read, write};
use crate::{Error, Result};

/// The directory in which a controller is in charge of a group, and whether that is v2.
pub(super) type Controller<'a, 'b> = &'a dyn Fn(&str) -> Option<(BorrowedFd<'b>, bool)>;

/// One limit.
#[derive(Debug, Default)]
struct Setting {
    controller: &'static str,
    field: &'static str,
    /// (v1 file, text), if v1 has such a thing. Of several the first that is there is written.
    v1: Vec<(String, String)>,
    v2: Vec<(String, String)>,
    /// Nothing is lost where the kernel has no such file.
    optional: bool,
}

impl Setting {
    fn new(controller: &'static str, field: &'static str) -> Self {
        Self { controller, field, ..Self::default() }
    }

    fn v1(mut self, file: impl Into<String>, text: impl ToString) -> Self {
        self.v1.push((file.into(), text.to_string()));
        self
    }

    fn v2(mut self, file: impl Into<String>, text: impl ToString) -> Self {
        self.v2.push((file.into(), text.to_string()));
        self
    }

    fn both(self, file: &str, text: impl ToString) -> Self {
        let text = text.to_string();
        self.v1(file, &text).v2(file, text)
    }

    fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// Writes all limits that are set.
pub(super) fn apply(resources: &LinuxResources, controller: Controller<'_, '_>) -> Result<()> {
    if let Some(rules) = resources.devices() {
        device_program::apply(rules, controller)?;
    }
    if let Some(memory) = resources.memory() {
        memory::check(memory, controller)?;
    }
    put_all(&settings(resources, controller)?, controller)?;
    // In order, so that the same request has the same end.
    let files: BTreeMap<&String, &String> = resources.unified().iter().flatten().collect();
    files.into_iter().try_for_each(|(file, text)| put_unified(file, text, controller))
}

/// The files that limits are in, and their texts, for whoever writes some of them too. The quota of processors is told
/// as v2 has it.
pub(super) fn files(resources: &LinuxResources, controller: Controller<'_, '_>) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for setting in settings(resources, controller)? {
        let Some((_, v2)) = controller(setting.controller) else { continue };
        let quota = setting.v2.iter().any(|(file, _)| file == "cpu.max");
        files.extend(if v2 || quota { setting.v2 } else { setting.v1 });
    }
    files.extend(resources.unified().clone().unwrap_or_default());
    Ok(files)
}

fn settings(resources: &LinuxResources, controller: Controller<'_, '_>) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(memory) = resources.memory() {
        settings.extend(memory::settings(memory, memory::limit_now(controller))?);
    }
    settings.extend(resources.cpu().iter().flat_map(|cpu| cpu_settings(cpu, controller)));
    settings.extend(resources.pids().iter().map(|pids| {
        let text = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
        Setting::new("pids", "pids.limit").both("pids.max", text)
    }));
    settings.extend(resources.block_io().iter().flat_map(io_settings));
    settings.extend(resources.hugepage_limits().iter().flatten().flat_map(huge_page_settings));
    settings.extend(resources.network().iter().flat_map(network_settings));
    settings.extend(resources.rdma().iter().flatten().map(|(device, limits)| rdma_setting(device, limits)));
    Ok(settings)
}

/// Limits bound each other (a quota its period, memory its swap), and which must move first depends on where they are.
/// So what the kernel calls invalid is tried again behind the others.
fn put_all(settings: &[Setting], controller: Controller<'_, '_>) -> Result<()> {
    let invalid = |e: &Error| matches!(e, Error::System(_, e) if e.raw_os_error() == Some(libc::EINVAL));
    let mut again = Vec::new();
    for setting in settings {
        match put(setting, controller) {
            Err(e) if invalid(&e) => again.push(setting),
            other => other?,
        }
    }
    again.into_iter().try_for_each(|setting| put(setting, controller))
}

fn put(setting: &Setting, controller: Controller<'_, '_>) -> Result<()> {
    let Some((dir, v2)) = controller(setting.controller) else {
        return Err(missing(setting.field, setting.controller));
    };
    let mut outcome = Ok(());
    for (file, text) in if v2 { &setting.v2 } else { &setting.v1 } {
        outcome = write_setting(dir, setting.field, file, text);
        if !matches!(&outcome, Err(Error::System(_, e)) if e.raw_os_error() == Some(libc::ENOENT)) {
            return outcome;
        }
    }
    if setting.optional { Ok(()) } else { outcome }
}

fn put_unified(file: &str, text: &str, controller: Controller<'_, '_>) -> Result<()> {
    let name = file.split('.').next().unwrap_or_default();
    if file.contains('/') {
        return Err(Error::Invalid(format!("linux.resources.unified: {file:?} is not a file")));
    }
    let Some((dir, true)) = controller(name) else {
        let what = format!("invalid configuration: linux.resources.unified: {file}: no {name} controller of cgroup v2");
        return Err(Error::Invalid(what));
    };
    // A file of devices takes one of them at a time.
    text.lines().try_for_each(|line| write_setting(dir, "unified", file, line))
}

pub(super) fn write_setting(dir: BorrowedFd<'_>, field: &str, file: &str, text: &str) -> Result<()> {
    write(dir, file, text).map_err(|e| Error::System(format!("linux.resources.{field}: write {text} to {file}"), e))
}

pub(super) fn missing(field: &str, controller: &str) -> Error {
    Error::Invalid(format!("linux.resources.{field}: there is no {controller} cgroup controller here that we may use"))
}

fn cpu_settings(cpu: &LinuxCpu, controller: Controller<'_, '_>) -> Vec<Setting> {
    let cpu_field = |field| Setting::new("cpu", field);
    let mut settings = Vec::new();
    // First: the kernel weighs an idle group as nothing and takes no shares of it.
    settings.extend(cpu.idle().map(|idle| cpu_field("cpu.idle").both("cpu.idle", idle)));
    settings.extend(
        cpu.shares()
            .filter(|shares| *shares != 0 && cpu.idle() != Some(1))
            .map(|shares| cpu_field("cpu.shares").v1("cpu.shares", shares).v2("cpu.weight", weight(shares))),
    );
    let (quota, period) = (cpu.quota().filter(|q| *q != 0), cpu.period().filter(|p| *p != 0));
    settings.extend(period.map(|period| cpu_field("cpu.period").v1("cpu.cfs_period_us", period)));
    settings.extend(quota.map(|quota| cpu_field("cpu.quota").v1("cpu.cfs_quota_us", quota.max(-1))));
    if quota.is_some() || period.is_some() {
        let now = controller("cpu").map(|(dir, v2)| cpu_max_now(dir, v2)).unwrap_or_default();
        settings.push(cpu_field("cpu.quota").v2("cpu.max", cpu_max(quota, period, &now)));
    }
    let burst = |burst| cpu_field("cpu.burst").v1("cpu.cfs_burst_us", burst).v2("cpu.max.burst", burst);
    settings.extend(cpu.burst().map(burst));
    let (period, runtime) = (cpu.realtime_period(), cpu.realtime_runtime());
    let real_time = |field, file: &str, n: i64| cpu_field(field).v1(file, n);
    let period = period.filter(|p| *p != 0).and_then(|p| i64::try_from(p).ok());
    settings.extend(period.map(|n| real_time("cpu.realtimePeriod", "cpu.rt_period_us", n)));
    settings.extend(runtime.filter(|n| *n != 0).map(|n| real_time("cpu.realtimeRuntime", "cpu.rt_runtime_us", n)));
    let set = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    settings.extend(set(cpu.cpus()).map(|cpus| Setting::new("cpuset", "cpu.cpus").both("cpuset.cpus", cpus)));
    settings.extend(set(cpu.mems()).map(|mems| Setting::new("cpuset", "cpu.mems").both("cpuset.mems", mems)));
    settings
}

/// What is in `cpu.max`, or would be.
fn cpu_max_now(dir: BorrowedFd<'_>, v2: bool) -> String {
    let text = |file| read(dir, file).unwrap_or_default();
    if v2 {
        return text("cpu.max");
    }
    format!("{} {}", text("cpu.cfs_quota_us").trim().replace("-1", "max"), text("cpu.cfs_period_us").trim())
}

/// The text of `cpu.max`: what is not said stays as it is now.
fn cpu_max(quota: Option<i64>, period: Option<u64>, now: &str) -> String {
    let mut words = now.split_whitespace();
    let (old_quota, old_period) = (words.next().unwrap_or("max"), words.next().unwrap_or("100000"));
    let quota = quota.map_or(old_quota.to_owned(), |q| if q > 0 { q.to_string() } else { "max".to_owned() });
    format!("{quota} {}", period.map_or(old_period.to_owned(), |p| p.to_string()))
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

fn io_settings(io: &LinuxBlockIo) -> Vec<Setting> {
    let io_field = |field| Setting::new("blkio", field);
    let set = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
    let mut settings = Vec::new();
    settings.extend(set(io.weight()).map(|weight| {
        io_field("blockIO.weight")
            .v1("blkio.bfq.weight", weight)
            .v1("blkio.weight", weight)
            .v2("io.bfq.weight", weight)
            .v2("io.weight", format!("default {}", io_weight(weight)))
    }));
    settings.extend(set(io.leaf_weight()).map(|w| io_field("blockIO.leafWeight").v1("blkio.leaf_weight", w)));
    for device in io.weight_device().iter().flatten() {
        let (major, minor) = (device.major(), device.minor());
        settings.extend(set(device.weight()).map(|weight| {
            io_field("blockIO.weightDevice")
                .v1("blkio.bfq.weight_device", format!("{major}:{minor} {weight}"))
                .v1("blkio.weight_device", format!("{major}:{minor} {weight}"))
                .v2("io.bfq.weight", format!("{major}:{minor} {weight}"))
                .v2("io.weight", format!("{major}:{minor} {}", io_weight(weight)))
        }));
        settings.extend(set(device.leaf_weight()).map(|weight| {
            io_field("blockIO.weightDevice").v1("blkio.leaf_weight_device", format!("{major}:{minor} {weight}"))
        }));
    }
    type Throttles<'a> = (&'static str, &'static str, &'static str, &'a Option<Vec<LinuxThrottleDevice>>);
    let throttles: [Throttles<'_>; 4] = [
        ("blockIO.throttleReadBpsDevice", "read_bps", "rbps", io.throttle_read_bps_device()),
        ("blockIO.throttleWriteBpsDevice", "write_bps", "wbps", io.throttle_write_bps_device()),
        ("blockIO.throttleReadIOPSDevice", "read_iops", "riops", io.throttle_read_iops_device()),
        ("blockIO.throttleWriteIOPSDevice", "write_iops", "wiops", io.throttle_write_iops_device()),
    ];
    for (field, v1, v2, devices) in throttles {
        settings.extend(devices.iter().flatten().map(|device| {
            let number = format!("{}:{}", device.major(), device.minor());
            io_field(field)
                .v1(format!("blkio.throttle.{v1}_device"), format!("{number} {}", device.rate()))
                .v2("io.max", format!("{number} {v2}={}", device.rate()))
        }));
    }
    settings
}

/// v1's weight (10 to 1000) as v2's (1 to 10000).
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).max(10) - 10) * 9999 / 990
}

/// The limit on pages in use, and on those reserved where the kernel counts them (Linux 5.7).
fn huge_page_settings(page: &LinuxHugepageLimit) -> [Setting; 2] {
    let (size, limit) = (page.page_size(), page.limit());
    ["", ".rsvd"].map(|kind| Setting {
        optional: !kind.is_empty(),
        ..Setting::new("hugetlb", "hugepageLimits")
            .v1(format!("hugetlb.{size}{kind}.limit_in_bytes"), limit)
            .v2(format!("hugetlb.{size}{kind}.max"), limit)
    })
}

fn network_settings(network: &LinuxNetwork) -> Vec<Setting> {
    let class = network.class_id().filter(|id| *id != 0);
    let class = class.map(|id| Setting::new("net_cls", "network.classID").v1("net_cls.classid", id));
    let priority = network.priorities().iter().flatten().map(|priority| {
        let text = format!("{} {}", priority.name(), priority.priority());
        Setting::new("net_prio", "network.priorities").v1("net_prio.ifpriomap", text)
    });
    class.into_iter().chain(priority).collect()
}

fn rdma_setting(device: &str, limits: &LinuxRdma) -> Setting {
    let word = |name: &str, n: Option<u32>| n.map(|n| format!(" {name}={n}")).unwrap_or_default();
    let (handles, objects) = (word("hca_handle", limits.hca_handles()), word("hca_object", limits.hca_objects()));
    Setting::new("rdma", "rdma").both("rdma.max", format!("{device}{handles}{objects}"))
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
        assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
    }

    #[test]
    fn what_is_not_said_of_cpu_max_stays() {
        assert_eq!(cpu_max(Some(50_000), None, "max 200000\n"), "50000 200000");
        assert_eq!(cpu_max(None, Some(50_000), "1000 200000\n"), "1000 50000");
        assert_eq!(cpu_max(Some(-1), None, ""), "max 100000");
    }

    /// What is written where, on v1 and on v2.
    #[test]
    fn resources_become_files() {
        let texts = |settings: Vec<Setting>| -> Vec<String> {
            let line = |(file, text): &(String, String)| format!("{file}={text}");
            settings
                .iter()
                .map(|s| [s.v1.first(), s.v2.first()].map(|f| f.map_or("-".into(), line)).join(" "))
                .collect()
        };
        let memory = |json: &str| memory::settings(&serde_json::from_str(json).unwrap(), Some(200));
        assert_eq!(
            texts(memory(r#"{"limit":100,"swap":300,"reservation":-1}"#).unwrap()),
            [
                "memory.memsw.limit_in_bytes=300 memory.swap.max=200",
                "memory.limit_in_bytes=100 memory.max=100",
                "memory.soft_limit_in_bytes=-1 memory.low=max"
            ]
        );
        assert_eq!(
            texts(memory(r#"{"limit":-1}"#).unwrap()),
            ["memory.memsw.limit_in_bytes=-1 memory.swap.max=max", "memory.limit_in_bytes=-1 memory.max=max"]
        );
        assert_eq!(texts(memory(r#"{"swap":300}"#).unwrap()), ["memory.memsw.limit_in_bytes=300 memory.swap.max=100"]);
        assert!(memory(r#"{"limit":300,"swap":100}"#).is_err());
        let io = r#"{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":77}]}"#;
        assert_eq!(
            texts(io_settings(&serde_json::from_str(io).unwrap())),
            ["blkio.bfq.weight=500 io.bfq.weight=500", "blkio.throttle.read_bps_device=8:0 77 io.max=8:0 rbps=77"]
        );
        let rdma = serde_json::from_str(r#"{"hcaHandles":3,"hcaObjects":10000}"#).unwrap();
        assert_eq!(texts(vec![rdma_setting("mlx5_1", &rdma)])[0].split(' ').count(), 6);
    }
}
