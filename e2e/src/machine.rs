//! Machines of their own: QEMU with Debian's cloud kernel and nothing but cgroup v2, all on one bridge in a network
//! namespace. The first runs `trimtab up`, the others agents.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cluster::{at_hand, busybox_archive, last_lines, program, run, stories};
use crate::qemu::{self, Boot, Power};
use crate::story::Place;

/// From power on to `ready`: emulated processors are slow, and there are three on two cores.
const READY: Duration = Duration::from_secs(300);
const MEMORY_MIB: u32 = 1024;

/// The machines and what they are booted from.
pub struct Machines {
    /// The network namespace they are in, with an address of its own for those who talk to them.
    pub namespace: String,
    dir: tempfile::TempDir,
    boot: Boot,
    machines: Vec<Machine>,
    tokens: Vec<String>,
}

struct Machine {
    name: String,
    address: String,
    /// While it is switched on.
    power: Option<Power>,
}

impl Machines {
    /// Makes the bridge and the disks; nothing is switched on yet.
    pub fn build(count: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tt-vm-").tempdir()?;
        let namespace = format!("ttv-{}", std::process::id());
        let boot = Boot::build(dir.path(), "cluster", &[(program(), "/bin/trimtab".to_owned())])?;
        let made = Self { namespace, dir, boot, machines: Vec::new(), tokens: Vec::new() };
        made.fabric()?;
        let preload = made.boot.root().join("var/lib/trimtab/preload");
        fs::create_dir_all(&preload)?;
        fs::copy(busybox_archive(made.dir.path())?, preload.join("busybox.tar"))?;
        (1..=count).try_fold(made, |mut made, at| {
            made.add(at)?;
            Ok(made)
        })
    }

    fn fabric(&self) -> Result<()> {
        let within = |words: &[&str]| run(&[&["ip", "-n", &self.namespace], words].concat());
        run(&["ip", "netns", "add", &self.namespace])?;
        within(&["link", "set", "lo", "up"])?;
        within(&["link", "add", "fabric", "type", "bridge"])?;
        within(&["addr", "add", "10.90.0.254/24", "dev", "fabric"])?;
        within(&["link", "set", "fabric", "up"])
    }

    fn add(&mut self, at: usize) -> Result<()> {
        let (name, address) = (format!("n{at}"), format!("10.90.0.{at}"));
        let tap = format!("tap{at}");
        run(&["ip", "-n", &self.namespace, "tuntap", "add", "dev", &tap, "mode", "tap"])?;
        run(&["ip", "-n", &self.namespace, "link", "set", &tap, "master", "fabric", "up"])?;
        self.boot.make_disk(&name)?;
        self.machines.push(Machine { name, address, power: None });
        Ok(())
    }

    /// Switches a machine on (again) and waits until its node is Ready.
    pub fn start(&mut self, at: usize) -> Result<()> {
        let machine = self.machines.get(at).context("no such machine")?;
        let purpose = match (at, self.machines.first()) {
            (1.., Some(server)) => {
                let token = self.tokens.get(at - 1).context("the server has given no token")?;
                format!("tt.verb=agent tt.server=https://{}:6443 tt.token={token}", server.address)
            }
            _ => "tt.verb=up".into(),
        };
        let console = self.boot.console(&machine.name);
        let (power, lines) = self.switch_on(machine, &purpose)?;
        if let Some(machine) = self.machines.get_mut(at) {
            machine.power = Some(power);
        }
        self.wait(&lines).with_context(|| last_lines(&console))
    }

    /// Returns the machine and what trimtab prints in it.
    fn switch_on(&self, machine: &Machine, purpose: &str) -> Result<(Power, Receiver<String>)> {
        let at = machine.address.rsplit('.').next().unwrap_or_default();
        let told = format!("tt.name={} tt.address={} {purpose}", machine.name, machine.address);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg("qemu-system-x86_64");
        command.args(["-netdev", &format!("tap,id=net,ifname=tap{at},script=no,downscript=no")]);
        command.args(["-device", &format!("virtio-net-pci,netdev=net,mac=52:54:00:00:00:{at:0>2}")]);
        qemu::switch_on(self.boot.describe(&mut command, &machine.name, MEMORY_MIB, &told))
    }

    /// Reads what a machine says until it is ready.
    fn wait(&mut self, lines: &Receiver<String>) -> Result<()> {
        loop {
            let line = lines.recv_timeout(READY).context("the machine did not become ready")?;
            match line.trim().split_once(' ') {
                Some(("kubeconfig", text)) => self.keep_kubeconfig(text)?,
                Some(("token", token)) => self.tokens.push(token.to_owned()),
                _ if line.trim() == "ready" => return Ok(()),
                _ => {}
            }
        }
    }

    /// The server's own kubeconfig names its loopback address.
    fn keep_kubeconfig(&self, text: &str) -> Result<()> {
        let text = String::from_utf8(STANDARD.decode(text)?)?;
        let server = &self.machines.first().context("no machine")?.address;
        Ok(fs::write(self.kubeconfig(), text.replace("127.0.0.1", server))?)
    }

    /// A kubeconfig that works in the namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// Cuts a machine's power: what it had not given its disk is lost.
    pub fn cut_power(&mut self, at: usize) -> Result<()> {
        let power = self.machines.get_mut(at).and_then(|machine| machine.power.take());
        power.map(drop).context("it is not switched on")
    }

    /// Cuts a machine off from all others, or joins it again.
    pub fn cut(&self, at: usize, cut: bool) -> Result<()> {
        let state = if cut { "down" } else { "up" };
        run(&["ip", "-n", &self.namespace, "link", "set", &format!("tap{}", at + 1), state])
    }
}

impl Place for Machines {
    fn shell(&self, line: &str) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).args(["bash", "-c", line]);
        command.env("KUBECONFIG", self.kubeconfig()).env("WORK", self.dir.path()).env("HOME", self.dir.path());
        Ok(at_hand(&mut command)?.current_dir(stories()).stdin(Stdio::null()).output()?)
    }

    fn logs(&self) -> String {
        let console = |m: &Machine| format!("--- {}\n{}\n", m.name, last_lines(&self.boot.console(&m.name)));
        self.machines.iter().map(console).collect()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.machines.clear();
        let _ = run(&["ip", "netns", "del", &self.namespace]);
    }
}
