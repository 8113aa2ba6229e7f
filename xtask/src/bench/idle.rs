//! P19: what a cluster takes that does nothing: memory of all its processes, and time on the processors.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::host::Host;
use super::process::{cpu_seconds, marked, memory_files_mib, pss_mib};
use super::row::{Contender, Figure, Row};
use super::server::Server;

pub(super) const ROW: Row = Row {
    id: "P19",
    what: "idle after the quick start: three web pods and DNS (target: 40 MiB, 0.3 % of a core; first target: 80 MiB)",
    once: true,
    contenders,
};

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    let minutes = host.idle.as_secs_f64() / 60.0;
    let mut all = vec![Contender::new(format!("trimtab up, after {minutes} min"), || ours(host))];
    if host.peer("etcd").is_some() && host.peer("kube-apiserver").is_some() {
        all.push(Contender::new(format!("kube-apiserver and etcd alone, after {minutes} min"), || peer(host)));
    }
    Ok(all)
}

fn ours(host: &Host) -> Result<Vec<Figure>> {
    let server = Server::trimtab(host, "idle", &["up"])?;
    let id = fs::read_to_string(server.data.join("instance")).context("the instance has no id")?;
    let (containers, shims) = (format!("trimtab-{}/", id.trim()), format!("/run/trimtab/{}/", id.trim()));
    let idle = settle(host.idle, || [server.pids(), marked(&containers), marked(&shims)].concat());
    let sum = |pids: &[u32]| pids.iter().copied().map(pss_mib).sum::<f64>();
    let files = memory_files_mib(&server.data.display().to_string());
    let (all, main, shims) = (sum(&idle.pids), sum(&server.pids()), sum(&marked(&shims)));
    Ok(vec![
        Figure::new("MiB", all + files),
        Figure::new("up", main),
        Figure::new("shims", shims),
        Figure::new("containers", all - main - shims),
        Figure::new("tmpfs", files),
        Figure::new("processes", idle.pids.len() as f64),
        Figure::new("CPU %", idle.percent),
    ])
}

fn peer(host: &Host) -> Result<Vec<Figure>> {
    let server = Server::peer(host, "idle-peer")?.context("no peer")?;
    let idle = settle(host.idle, || server.pids());
    Ok(vec![
        Figure::new("MiB", idle.pids.iter().copied().map(pss_mib).sum()),
        Figure::new("processes", idle.pids.len() as f64),
        Figure::new("CPU %", idle.percent),
    ])
}

struct Idle {
    pids: Vec<u32>,
    /// Of one processor, over the last half of the time.
    percent: f64,
}

/// Lets time pass: the first half for what a start leaves to do.
fn settle(time: Duration, members: impl Fn() -> Vec<u32>) -> Idle {
    thread::park_timeout(time / 2);
    let mut pids = members();
    pids.sort_unstable();
    pids.dedup();
    let cpu = |pids: &[u32]| pids.iter().copied().map(cpu_seconds).sum::<f64>();
    let before = cpu(&pids);
    thread::park_timeout(time / 2);
    Idle { percent: (cpu(&pids) - before) / (time / 2).as_secs_f64() * 100.0, pids }
}
