//! P21 and P22: many services loaded, and one endpoint changed, beside kube-proxy in nftables mode.
//!
//! Each node is a network namespace of its own, in which all endpoints are addresses of the loopback. All watch one API
//! server, ours.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::host::{ADDRESS, Host, quiet, samples};
use super::process::{children_cpu_seconds, cpu_seconds, peak_mib};
use super::row::{Contender, Figure, Row, Samples, percentiles};
use super::server::{Server, end};

pub(super) const LOAD: Row = Row {
    id: "P21",
    what: "5,000 services with 50 endpoints each: seconds from exec to the first connection through a service; the rules \
           alone: of one transaction (target: 3 s; first target: 5 s)",
    once: true,
    contenders: loads,
};

pub(super) const CHANGE: Row = Row {
    id: "P22",
    what: "one endpoint changed beside 5,000 services with 50 endpoints each: from the API server's answer to the first \
           connection to the new endpoint; the rules alone: the transaction (target: p99 3 ms)",
    once: true,
    contenders: changes,
};

const SERVICES: &str = "5000";
const ENDPOINTS: &str = "50";
const MOVES: &str = "20";
const CHANGES: &str = "200";
/// What the drivers take for the endpoints' addresses.
const ALL_ENDPOINTS: &str = "10.128.0.1/9";

fn loads(host: &Host) -> Result<Vec<Contender<'_>>> {
    let mut all = vec![Contender::new("trimtab's rules alone", || {
        let load = alone(host, "0")?.remove("load").context("no load")?;
        Ok(vec![Figure::new("s", load.first().copied().unwrap_or_default() / 1e9)])
    })];
    let server = Rc::new(filled(host)?);
    for program in Program::found(host) {
        let server = server.clone();
        all.push(Contender::new(program.name(), move || Node::start(host, &server, &program)?.loaded()));
    }
    Ok(all)
}

fn changes(host: &Host) -> Result<Vec<Contender<'_>>> {
    let mut all = vec![Contender::new("trimtab's rules alone", || {
        Ok(percentiles("", &alone(host, CHANGES)?.remove("change").context("no changes")?))
    })];
    let server = Rc::new(filled(host)?);
    for program in Program::found(host) {
        let server = server.clone();
        all.push(Contender::new(program.name(), move || {
            let node = Node::start(host, &server, &program)?;
            node.loaded()?;
            let before = node.cpu();
            let moves = node.drive(&["moves", MOVES])?.remove("move").context("no moves")?;
            let cpu = Figure::new("CPU ms/op", (node.cpu() - before) * 1e3 / moves.len() as f64);
            Ok(percentiles("", &moves).into_iter().chain([cpu]).collect())
        }));
    }
    Ok(all)
}

/// Transactions in a namespace without anything else.
fn alone(host: &Host, changes: &str) -> Result<Samples> {
    let space = Space::new(host, "alone")?;
    let dir = host.fresh("alone")?.display().to_string();
    samples(space.within(&host.driver("rules")).args([dir.as_str(), SERVICES, ENDPOINTS, changes]))
}

/// An API server that has all services.
fn filled(host: &Host) -> Result<Server<'_>> {
    let listen = format!("{ADDRESS}:6443");
    let server = Server::trimtab(host, "services", &["apiserver", "--listen", &listen])?;
    server.drive(&["services", SERVICES, ENDPOINTS])?;
    Ok(server)
}

/// What keeps a node's rules.
enum Program {
    Trimtab(PathBuf),
    KubeProxy(PathBuf),
}

impl Program {
    fn found(host: &Host) -> Vec<Self> {
        let peer = host.peer("kube-proxy").map(Self::KubeProxy);
        [Self::Trimtab(host.trimtab())].into_iter().chain(peer).collect()
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Trimtab(_) => "trimtab node-agent",
            Self::KubeProxy(_) => "kube-proxy, nftables",
        }
    }

    /// The namespace, the node's address, and its pods' range.
    fn place(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Trimtab(_) => ("agent", "10.88.0.2", "10.244.1.0/24"),
            Self::KubeProxy(_) => ("proxy", "10.88.0.3", "10.244.2.0/24"),
        }
    }
}

/// A network namespace on the fabric; gone when dropped.
struct Space {
    name: String,
}

impl Space {
    fn new(host: &Host, name: &str) -> Result<Self> {
        let space = Self { name: format!("{}-{name}", host.namespace) };
        quiet(Command::new("ip").args(["netns", "add", &space.name]))?;
        space.ip(&["link", "set", "lo", "up"])?;
        Ok(space)
    }

    fn ip(&self, words: &[&str]) -> Result<()> {
        quiet(Command::new("ip").args(["-n", &self.name]).args(words))
    }

    fn join(&self, host: &Host, ip: &str, link: &str) -> Result<()> {
        self.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", link, "netns", &host.namespace])?;
        self.ip(&["addr", "add", &format!("{ip}/24"), "dev", "eth0"])?;
        self.ip(&["addr", "add", ALL_ENDPOINTS, "dev", "lo"])?;
        self.ip(&["link", "set", "eth0", "up"])?;
        self.ip(&["route", "add", "default", "via", ADDRESS])?;
        quiet(Command::new("ip").args(["-n", &host.namespace, "link", "set", link, "master", "fabric", "up"]))
    }

    fn within(&self, program: &std::path::Path) -> Command {
        super::host::within(&self.name, program)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = quiet(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// A node whose rules a program keeps; both are gone when it is dropped.
struct Node<'a> {
    host: &'a Host,
    server: &'a Server<'a>,
    data: PathBuf,
    child: Option<Child>,
    began: f64,
    ours: bool,
    space: Space,
}

impl<'a> Node<'a> {
    fn start(host: &'a Host, server: &'a Server<'a>, program: &Program) -> Result<Self> {
        let (name, ip, cidr) = program.place();
        let space = Space::new(host, name)?;
        space.join(host, ip, name)?;
        server.drive(&["node", name, ip, cidr])?;
        let data = host.fresh(name)?;
        let kubeconfig = server.kubeconfig.display().to_string();
        let mut command = match program {
            Program::Trimtab(path) => {
                let mut command = space.within(path);
                command.args(["node-agent", "--kubeconfig", &kubeconfig, "--node-name", name, "--node-ip", ip]);
                command.arg("--client-ca-file").arg(server.data.join("pki/ca.crt")).arg("--data-dir").arg(&data);
                command
            }
            Program::KubeProxy(path) => {
                let mut command = space.within(path);
                command.args(["--proxy-mode=nftables", "--cluster-cidr=10.244.0.0/16", "--conntrack-max-per-core=0"]);
                command.args(["--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"]);
                command.arg(format!("--kubeconfig={kubeconfig}")).arg(format!("--hostname-override={name}"));
                command
            }
        };
        let log = File::create(data.with_extension("log"))?;
        let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as f64;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("start the node's program")?;
        let ours = matches!(program, Program::Trimtab(_));
        Ok(Self { host, server, data, child: Some(child), began, ours, space })
    }

    /// Waits until the rules are in the kernel.
    fn loaded(&self) -> Result<Vec<Figure>> {
        let log = self.data.with_extension("log");
        let seen = self.drive(&["reach"]).with_context(|| super::server::tail(&log))?;
        let reached = seen.get("reached").and_then(|times| times.first()).context("not reached")?;
        let pid = self.child.as_ref().map_or(0, Child::id);
        Ok(vec![
            Figure::new("s", (reached - self.began) / 1e9),
            Figure::new("CPU s", self.cpu()),
            Figure::new("peak MiB", peak_mib(pid)),
        ])
    }

    /// Of the program and of those that it has called.
    fn cpu(&self) -> f64 {
        let pid = self.child.as_ref().map_or(0, Child::id);
        cpu_seconds(pid) + children_cpu_seconds(pid)
    }

    fn drive(&self, task: &[&str]) -> Result<Samples> {
        let mut command = self.space.within(&self.host.driver("drive"));
        samples(command.arg(&self.server.kubeconfig).args(task))
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.child.take().into_iter().for_each(end);
        if self.ours {
            let mut down = self.space.within(&self.host.trimtab());
            if let Err(error) = quiet(down.args(["down", "--purge", "--data-dir"]).arg(&self.data)) {
                eprintln!("{error:#}");
            }
        }
        let _ = fs::remove_dir_all(&self.data);
    }
}
