//! What all rows share: programs built for release, peers, a directory and a network namespace, both of which go again.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::row::Samples;
use crate::run::{cargo, show};

/// Packages whose examples take the times.
const DRIVERS: &[&str] = &["e2e", "store", "apiserver", "scheduler", "runtime-core", "network"];
/// The address of the only node.
pub(crate) const ADDRESS: &str = "10.88.0.1";

/// What our directory and our network namespace are called, before the number of our process.
const MARK: &str = "trimtab-bench-";
/// Where iproute2 keeps network namespaces.
const NAMESPACES: &str = "/run/netns";

/// The machine as the rows see it.
pub(crate) struct Host {
    /// `target/<triple>/release`.
    release: PathBuf,
    peers: Option<PathBuf>,
    /// A fresh directory.
    pub(crate) dir: PathBuf,
    /// A fresh network namespace with a loopback and [`ADDRESS`].
    pub(crate) namespace: String,
    /// When the idle figures are taken.
    pub(crate) idle: Duration,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = quiet(Command::new("ip").args(["netns", "del", &self.namespace]));
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Host {
    /// Builds, and makes what is to be removed afterwards.
    pub(crate) fn prepare(peers: Option<PathBuf>, dir: &Path, idle: Duration) -> Result<Self> {
        let release = build()?;
        sweep(dir);
        let name = format!("{MARK}{}", std::process::id());
        let host = Self { release, peers, dir: dir.join(&name), namespace: name, idle };
        fs::create_dir_all(&host.dir).with_context(|| format!("make {}", host.dir.display()))?;
        host.fabric().context("make a network namespace: this needs root and iproute2")?;
        Ok(host)
    }

    fn fabric(&self) -> Result<()> {
        let ip = |words: &[&str]| quiet(Command::new("ip").args(words));
        let inside = |words: &[&str]| ip(&[&["-n", &self.namespace], words].concat());
        ip(&["netns", "add", &self.namespace])?;
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "add", "fabric", "type", "bridge"])?;
        inside(&["addr", "add", &format!("{ADDRESS}/24"), "dev", "fabric"])?;
        inside(&["link", "set", "fabric", "up"])
    }

    /// Says on what machine this is, and who takes part.
    pub(crate) fn introduce(&self) {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        println!("Linux {}, {cores} cores, load {}", kernel.trim(), load.split(' ').next().unwrap_or_default());
        for name in ["etcd", "kube-apiserver", "kube-scheduler", "kube-proxy", "runc", "crun", "umoci"] {
            match self.peer(name) {
                Some(path) => println!("{name}: {}, {}", path.display(), version(&path)),
                None => println!("{name}: not found"),
            }
        }
        println!(
            "Figures are medians of the turns (least..most). Figures of other runs compare by their ratios alone."
        );
    }

    /// A peer's program.
    pub(crate) fn peer(&self, name: &str) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = self.peers.iter().cloned().chain(env::split_paths(&path)).chain([PathBuf::from("/usr/sbin")]);
        folders.map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Our program.
    pub(crate) fn trimtab(&self) -> PathBuf {
        self.release.join("trimtab")
    }

    /// An example that takes times.
    pub(crate) fn driver(&self, name: &str) -> PathBuf {
        self.release.join("examples").join(name)
    }

    /// A directory of this name below ours, empty.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A command in the network namespace.
    pub(crate) fn within(&self, program: &Path) -> Command {
        within(&self.namespace, program)
    }

    /// What an example says.
    pub(crate) fn drive(&self, name: &str, words: &[&str]) -> Result<Samples> {
        samples(self.within(&self.driver(name)).args(words))
    }
}

/// Removes what a killed one has left.
fn sweep(dir: &Path) {
    let names = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let left = |name: &OsStr| {
        let process = name.to_str().and_then(|name| name.strip_prefix(MARK)?.parse::<u32>().ok());
        process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists())
    };
    for name in names(Path::new(NAMESPACES)).filter(|name| left(name)) {
        let _ = quiet(Command::new("ip").args(["netns", "del"]).arg(name));
    }
    for name in names(dir).filter(|name| left(name)) {
        let _ = fs::remove_dir_all(dir.join(name));
    }
}

/// A command in a network namespace. (`ip netns exec` would hide the cgroups below /sys.)
pub(crate) fn within(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={NAMESPACES}/{namespace}")).arg(program).stdin(Stdio::null());
    command
}

/// Runs a program that prints lines `WHAT VALUE`.
pub(crate) fn samples(command: &mut Command) -> Result<Samples> {
    let mut samples = Samples::new();
    for line in output(command)?.lines() {
        let (what, value) = line.split_once(' ').with_context(|| format!("not a figure: {line:?}"))?;
        samples.entry(what.to_owned()).or_default().push(value.parse().with_context(|| line.to_owned())?);
    }
    Ok(samples)
}

/// Runs a program for its standard output; an exit code other than 0 is an error with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    if !output.status.success() {
        let program = command.get_program().display();
        bail!("{program} {words}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a program whose output nobody needs.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// `target/<triple>/debug/xtask` -> `target/<triple>/release`, with all programs built.
fn build() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--bins", "--examples", "--package", "cli"]);
    show(command.args(DRIVERS.iter().flat_map(|package| ["--package", package])))?;
    let own = env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("xtask lies in no target directory")?;
    Ok(folder.join("release"))
}

/// The first line of what a peer says about itself.
fn version(path: &Path) -> String {
    let said = output(Command::new(path).arg("--version")).unwrap_or_default();
    said.lines().next().unwrap_or("no version").to_owned()
}
