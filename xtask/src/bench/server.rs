//! A running API server, ours or a peer's, and what a load on it cost.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::host::{ADDRESS, Host, output, quiet};
use super::row::{Figure, Samples};
use super::{peer, process};

/// A server has this long to become ready, and as long to end.
const WITHIN: Duration = Duration::from_secs(120);

/// Processes that end when this is dropped.
pub(crate) struct Server<'a> {
    pub(crate) host: &'a Host,
    pub(crate) kubeconfig: PathBuf,
    /// Where it keeps its data.
    pub(crate) data: PathBuf,
    children: Vec<Child>,
    /// `trimtab down` must be called.
    ours: bool,
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.children.drain(..).rev().for_each(end);
        if self.ours {
            let mut down = self.host.within(&self.host.trimtab());
            if let Err(error) = quiet(down.args(["down", "--purge", "--data-dir"]).arg(&self.data)) {
                eprintln!("{error:#}");
            }
        }
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// Tells a process to end, and makes it end.
pub(crate) fn end(mut child: Child) {
    let pid = child.id().to_string();
    let signal = |name: &str| quiet(Command::new("kill").args([name, &pid]));
    let _ = signal("-TERM");
    let (sender, ended) = channel();
    thread::spawn(move || sender.send(child.wait()));
    if ended.recv_timeout(WITHIN).is_err() {
        let _ = signal("-KILL");
        let _ = ended.recv();
    }
}

impl<'a> Server<'a> {
    /// Our API server alone, on the embedded store.
    pub(crate) fn ours(host: &'a Host, name: &str) -> Result<Self> {
        Self::trimtab(host, name, &["apiserver", "--listen", "127.0.0.1:6443"])
    }

    /// `trimtab up` and the like, until the line `ready`.
    pub(crate) fn trimtab(host: &'a Host, name: &str, words: &[&str]) -> Result<Self> {
        let mut server = Self::launch(host, name, words)?;
        server.ready()?;
        Ok(server)
    }

    /// The same, not yet ready.
    pub(crate) fn launch(host: &'a Host, name: &str, words: &[&str]) -> Result<Self> {
        let data = host.fresh(name)?;
        let mut command = host.within(&host.trimtab());
        command.args(words).args(["--node-ip", ADDRESS, "--data-dir"]).arg(&data);
        let log = File::create(host.dir.join(format!("{name}.log")))?;
        let child = command.stdout(Stdio::piped()).stderr(log).spawn().context("start trimtab")?;
        Ok(Self { host, kubeconfig: data.join("admin.kubeconfig"), data, children: vec![child], ours: true })
    }

    /// Waits for the line `ready`.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let stdout = self.children.first_mut().and_then(|child| child.stdout.take()).context("no standard output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        loop {
            match lines.recv_timeout(WITHIN) {
                Ok(line) if line == "ready" => return Ok(()),
                Ok(_) => {}
                Err(_) => bail!("not ready: {}", tail(&self.data.with_extension("log"))),
            }
        }
    }

    /// kube-apiserver on an etcd, where both were found.
    pub(crate) fn peer(host: &'a Host, name: &str) -> Result<Option<Self>> {
        let (Some(etcd), Some(apiserver)) = (host.peer("etcd"), host.peer("kube-apiserver")) else { return Ok(None) };
        let data = host.fresh(name)?;
        let kubeconfig = peer::identity(&data)?;
        let mut server = Self { host, kubeconfig, data, children: Vec::new(), ours: false };
        server.spawn("etcd", &etcd, &peer::etcd_arguments(&server.data))?;
        server.spawn("kube-apiserver", &apiserver, &peer::apiserver_arguments(&server.data, peer::ETCD))?;
        server.drive(&["ready"]).with_context(|| tail(&server.data.join("kube-apiserver.log")))?;
        Ok(Some(server))
    }

    /// An etcd alone, where one was found.
    pub(crate) fn etcd(host: &'a Host, name: &str) -> Result<Option<Self>> {
        let Some(etcd) = host.peer("etcd") else { return Ok(None) };
        let data = host.fresh(name)?;
        let mut server = Self { host, kubeconfig: PathBuf::new(), data, children: Vec::new(), ours: false };
        server.spawn("etcd", &etcd, &peer::etcd_arguments(&server.data))?;
        Ok(Some(server))
    }

    fn spawn(&mut self, name: &str, program: &Path, words: &[String]) -> Result<()> {
        let log = File::create(self.data.join(format!("{name}.log")))?;
        let mut command = self.host.within(program);
        command.args(words).stdout(log.try_clone()?).stderr(log);
        self.children.push(command.spawn().with_context(|| format!("start {name}"))?);
        Ok(())
    }

    /// The processes that were started. (nsenter has become the program.)
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// What the client saw.
    pub(crate) fn drive(&self, task: &[&str]) -> Result<Samples> {
        let kubeconfig = self.kubeconfig.display().to_string();
        self.host.drive("drive", &[&[kubeconfig.as_str()], task].concat())
    }

    /// What a load saw, with the server's time on processors for each of the `what` and its highest memory.
    pub(crate) fn load(&self, what: &str, work: impl FnOnce() -> Result<Samples>) -> Result<(Samples, Vec<Figure>)> {
        let cpu = || self.pids().into_iter().map(process::cpu_seconds).sum::<f64>();
        let before = cpu();
        let samples = work()?;
        let count = samples.get(what).map_or(0, Vec::len);
        let cost = vec![
            Figure::new("CPU ms/op", (cpu() - before) * 1e3 / count as f64),
            Figure::new("peak MiB", self.pids().into_iter().map(process::peak_mib).sum()),
        ];
        Ok((samples, cost))
    }
}

pub(crate) fn tail(log: &Path) -> String {
    let text = output(Command::new("tail").args(["-n", "5"]).arg(log)).unwrap_or_default();
    format!("{}: {}", log.display(), text.trim())
}
