//! Runs on a machine that has other things to do: each comes to its end and leaves nothing. `cargo xtask soak` makes it
//! [`FULL`]: five hundred, of the whole program.

use std::collections::BTreeSet;
use std::fs;
use std::hint::spin_loop;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use crate::oci::Bundle;
use crate::support::busybox;

/// Set: all of it, for which CI has no time.
const FULL: &str = "TRIMTAB_SOAK_FULL";
/// Loops that do nothing, and how many runs are under way at once.
const BUSY: usize = 4;
const AT_ONCE: usize = 2;
/// Who has not ended by then hangs.
const PATIENCE: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

#[test]
fn runs_end_under_load() {
    let Some(_) = busybox() else { return };
    let runs = if std::env::var_os(FULL).is_some() { 500 } else { 40 };
    let limits = json!({"memory": {"limit": 64 << 20}, "cpu": {"shares": 100}, "pids": {"limit": 100}});
    let bundle = Bundle::new("load", "exit 7", |s| {
        s["linux"]["resources"] = limits;
        s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
        s["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    let before = cgroups(&bundle);
    let (over, next, slowest) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..BUSY {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    spin_loop()
                }
            });
        }
        let one_by_one = || {
            while let Some(n) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < runs) {
                slowest.fetch_max(run(&bundle, n).as_micros().try_into().unwrap(), Ordering::Relaxed);
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(one_by_one)).collect();
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    let slowest = Duration::from_micros(slowest.into_inner().try_into().unwrap());
    println!("{runs} runs beside {BUSY} busy loops in {:?}, the slowest in {slowest:?}", began.elapsed());
    assert_eq!(bundle.good(&["list", "-q"]), "");
    assert_eq!(fs::read_dir(bundle.root()).unwrap().count(), 0);
    assert_eq!(cgroups(&bundle), before);
}

fn run(bundle: &Bundle, number: usize) -> Duration {
    let began = Instant::now();
    let id = format!("{}-{number}", bundle.id);
    let mut command = bundle.command(&["run", "--bundle", bundle.bundle(), &id]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let pidfd: OwnedFd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let ended = poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&PATIENCE)).unwrap() == 1;
    let seen = if ended { String::new() } else { told(&mut child) };
    let output = child.wait_with_output().unwrap();
    assert!(ended, "run {number} hangs: {seen}");
    assert_eq!(output.status.code(), Some(7), "run {number}: {}", String::from_utf8_lossy(&output.stderr));
    began.elapsed()
}

/// Where a process and its children wait; then it is killed.
fn told(child: &mut Child) -> String {
    let pid = child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let all = std::iter::once(pid.to_string()).chain(children.split_whitespace().map(str::to_owned));
    let parts = ["status", "stack", "syscall"];
    let said =
        all.flat_map(|pid| parts.map(|part| fs::read_to_string(format!("/proc/{pid}/{part}")).unwrap_or_default()));
    let said = said.collect::<Vec<_>>().join("\n");
    let _ = child.kill();
    said
}

/// Cgroups of the bundle's containers, in every hierarchy.
fn cgroups(bundle: &Bundle) -> BTreeSet<String> {
    let words = ["/sys/fs/cgroup", "-name", &format!("{}*", bundle.id)];
    let found = std::process::Command::new("find").args(words).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}
