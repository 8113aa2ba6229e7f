//! P12 and P13: pods that a scheduler places a second, in the decider alone and through our API server, beside upstream's
//! kube-scheduler on the same one.
//!
//! Through the API the pods are there before a scheduler is started, so that whoever makes them has no part in the
//! figures: the rate is that between the first binding and the last, as a watch sees them.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result};

use super::host::Host;
use super::process::cpu_seconds;
use super::row::{Contender, Figure, Row};
use super::server::{Server, end, tail};

pub(super) const PLAIN: Row = Row {
    id: "P12",
    what: "pods placed a second, 2,000 on 5,000 nodes; through the API: bound, and CPU ms of scheduler and API server \
           for each (target: 10,000; first target: 2,000)",
    once: false,
    contenders: |host| contenders(host, &["P12"], &[("plain", 2000)]),
};

pub(super) const CONSTRAINED: Row = Row {
    id: "P13",
    what: "the same for pods that say something about others or have to make room; through the API 500 of each kind \
           (target: 3,000)",
    once: false,
    contenders: |host| contenders(host, &["P13"], &[("affinity", 500), ("anti-affinity", 500)]),
};

const NODES: &str = "5000";

/// A kind of pods, and how many wait.
type Pods = (&'static str, usize);

fn contenders<'a>(host: &'a Host, row: &'static [&'static str], pods: &'static [Pods]) -> Result<Vec<Contender<'a>>> {
    let mut all = vec![Contender::new("trimtab, the decider alone", move || {
        let samples = host.drive("decisions", row)?;
        let figure = |(kind, rates): (String, Vec<f64>)| Figure::new(kind, rates.first().copied().unwrap_or_default());
        Ok(samples.into_iter().map(figure).collect())
    })];
    let server = Rc::new(Server::ours(host, "schedule")?);
    server.drive(&["nodes", NODES])?;
    for program in Program::found(host) {
        let server = server.clone();
        all.push(Contender::new(program.name, move || {
            let kinds = pods.iter().map(|(kind, count)| through_the_api(&server, &program, kind, *count));
            Ok(kinds.collect::<Result<Vec<_>>>()?.concat())
        }));
    }
    Ok(all)
}

/// A scheduler.
struct Program {
    name: &'static str,
    path: PathBuf,
    words: &'static [&'static str],
}

impl Program {
    fn found(host: &Host) -> Vec<Self> {
        let ours = Self { name: "trimtab, through the API", path: host.trimtab(), words: &["scheduler"] };
        // With its default limit, of 50 requests a second, nothing else could be seen.
        let words = &["--leader-elect=false", "--secure-port=0", "--kube-api-qps=100000", "--kube-api-burst=100000"];
        let peer = |path| Self { name: "kube-scheduler, through the same API server", path, words };
        [ours].into_iter().chain(host.peer("kube-scheduler").map(peer)).collect()
    }
}

/// Makes pods, lets a scheduler bind them, and deletes them.
fn through_the_api(server: &Server<'_>, program: &Program, kind: &str, count: usize) -> Result<Vec<Figure>> {
    server.drive(&["waiting", kind, &count.to_string()])?;
    let mut watcher = Watcher::start(server, count)?;
    watcher.saw("watching")?;
    let (scheduler, log) = start(server, program)?;
    let cpu = || {
        let of_server = server.pids().into_iter().map(cpu_seconds).sum::<f64>();
        (cpu_seconds(scheduler.0.as_ref().map_or(0, Child::id)), of_server)
    };
    let first = watcher.saw("first").with_context(|| tail(&log))?;
    let before = cpu();
    let last = watcher.saw("last").with_context(|| tail(&log))?;
    let after = cpu();
    drop(scheduler);
    server.drive(&["emptied"])?;
    // The first opens the clock.
    let others = (count - 1) as f64;
    let cost = |who: &str, seconds: f64| Figure::new(format!("{kind}: {who} ms"), seconds * 1e3 / others);
    Ok(vec![
        Figure::new(kind, others * 1e9 / (last - first)),
        cost("scheduler", after.0 - before.0),
        cost("server", after.1 - before.1),
    ])
}

/// Starts a scheduler under its own identity; its log.
fn start(server: &Server<'_>, program: &Program) -> Result<(Running, PathBuf)> {
    let log = server.data.with_file_name("scheduler.log");
    let file = File::create(&log)?;
    let mut command = server.host.within(&program.path);
    command.args(program.words).arg("--kubeconfig").arg(server.data.join("scheduler.kubeconfig"));
    let child = command.stdout(file.try_clone()?).stderr(file).spawn().context("start a scheduler")?;
    Ok((Running(Some(child)), log))
}

/// Who sees pods bound.
struct Watcher {
    lines: Lines<BufReader<ChildStdout>>,
    _process: Running,
}

impl Watcher {
    fn start(server: &Server<'_>, count: usize) -> Result<Self> {
        let mut command = server.host.within(&server.host.driver("drive"));
        command.arg(&server.kubeconfig).args(["bound", &count.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("start the watcher")?;
        let lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        Ok(Self { lines, _process: Running(Some(child)) })
    }

    /// When it saw what it says next, in nanoseconds.
    fn saw(&mut self, what: &str) -> Result<f64> {
        let line = self.lines.next().with_context(|| format!("the watcher never said {what}"))??;
        let time = line.strip_prefix(what).with_context(|| format!("the watcher said {line:?} for {what}"))?;
        Ok(time.trim().parse()?)
    }
}

/// A process that ends when this is dropped.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(end);
    }
}
