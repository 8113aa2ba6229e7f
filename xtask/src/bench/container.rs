//! P18: a container created, started and deleted, by each runtime's own command line and in the agent's shim.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::host::{Host, samples};
use super::row::{Contender, Figure, Row, percentiles};

pub(super) const ROW: Row = Row {
    id: "P18",
    what: "container create, start and delete, cgroups on, /bin/true (target: 0.6 times crun)",
    once: false,
    contenders,
};

const RUNS: &str = "25";

/// A namespace of each kind, cgroups with limits, and what every container has.
pub(super) const CONFIG: &str = r#"{
  "ociVersion": "1.0.2",
  "process": {
    "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/",
    "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
    "noNewPrivileges": true
  },
  "root": {"path": "rootfs", "readonly": true},
  "hostname": "bench",
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
  ],
  "linux": {
    "cgroupsPath": "/trimtab-bench/c",
    "resources": {"memory": {"limit": 67108864}, "cpu": {"shares": 100}, "pids": {"limit": 100}},
    "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
    "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
    "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
  }
}"#;

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    bundle(&host.dir.join("bundle"))?;
    let mut runtimes = vec![("trimtab oci run".to_owned(), vec![host.trimtab().display().to_string(), "oci".into()])];
    for name in ["runc", "crun"] {
        runtimes.extend(host.peer(name).map(|path| (format!("{name} run"), vec![path.display().to_string()])));
    }
    let mut all: Vec<Contender<'_>> =
        runtimes.into_iter().map(|(name, words)| Contender::new(name, move || run(host, &words))).collect();
    all.push(Contender::new("trimtab, in the shim", || in_shim(host)));
    Ok(all)
}

/// busybox from the host, and a configuration.
pub(super) fn bundle(dir: &Path) -> Result<()> {
    let bin = dir.join("rootfs/bin");
    fs::create_dir_all(&bin)?;
    for folder in ["proc", "sys", "dev"] {
        fs::create_dir_all(dir.join("rootfs").join(folder))?;
    }
    fs::copy("/bin/busybox", bin.join("true")).context("/bin/busybox (package busybox-static)")?;
    fs::write(dir.join("config.json"), CONFIG)?;
    Ok(())
}

/// In a mount namespace without the v2 mount of a hybrid host, which crun refuses: the same for all.
fn run(host: &Host, runtime: &[String]) -> Result<Vec<Figure>> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe()?).args(["repeat", RUNS]).args(runtime);
    command.arg("--root").arg(host.dir.join("containers")).args(["run", "--bundle"]).arg(host.dir.join("bundle"));
    let samples = samples(command.arg("bench"))?;
    let times = samples.get("run").context("no runs")?;
    let cpu = samples.get("cpu").and_then(|cpu| cpu.first()).context("no time on processors")?;
    Ok(percentiles("", times).into_iter().chain([Figure::new("CPU ms/op", cpu / times.len() as f64 / 1e6)]).collect())
}

fn in_shim(host: &Host) -> Result<Vec<Figure>> {
    let samples = samples(Command::new(host.driver("starts")).arg(RUNS).env("TRIMTAB_PROGRAM", host.trimtab()))?;
    let removed = samples.get("removed").context("no runs")?;
    let running = samples.get("running").map_or(&[][..], Vec::as_slice);
    let first = percentiles("running", running).into_iter().take(1);
    Ok(percentiles("", removed).into_iter().chain(first).collect())
}
