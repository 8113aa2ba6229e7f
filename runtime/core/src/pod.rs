//! A pod as the node agent drives it: a shim process that owns its namespaces and containers.
//!
//! One shim a pod, one thread, parent of every container. The agent talks to it over a SEQPACKET socket in the pod's
//! run directory; all calls here block for at most a few milliseconds unless said otherwise, so callers in async code
//! use a blocking thread. The shim outlives the agent: [`Shim::adopt`] finds it again.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};

use crate::protocol::{self, Call, ContainerFile, Failure, PodFile, check_id};
use crate::{Error, Result, destroy, files};

/// The version of the shim's protocol and files. A new agent understands all older ones.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a pod's containers share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodConfig {
    /// Unique on the host within the instance, matches `[A-Za-z0-9_-]{1,128}`: the pod's uid.
    pub id: String,
    /// `/run/trimtab/<instance>/pods/<id>`: socket, state and exit files.
    pub run_dir: PathBuf,
    /// Hostname inside; unused with the host's UTS namespace.
    pub hostname: String,
    /// The network namespace to join (a bind-mounted nsfs file), or `None` for the host's. A pod with a user namespace
    /// makes its own, whatever stands here: see [`Shim::network`].
    pub network: Option<PathBuf>,
    /// The host's IPC namespace instead of one of the pod's own.
    pub host_ipc: bool,
    /// The host's pid namespace.
    pub host_pid: bool,
    /// One pid namespace for all containers, with a built-in reaping init.
    pub shared_pid: bool,
    /// A user namespace for the pod: (inside, outside, length) for uids and gids alike; inside is 0. Files of layers and
    /// volumes are seen with the ids they have on disk.
    pub user_map: Option<(u32, u32, u32)>,
    /// Namespaced sysctls, name to value.
    pub sysctls: Vec<(String, String)>,
    /// The pod's cgroup, relative to every hierarchy's root: `trimtab-<instance>/burstable/pod<uid>`.
    pub cgroup: PathBuf,
    /// Limits of the pod's cgroup as OCI resources.
    pub resources: LinuxResources,
}

/// A container's root filesystem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Unpacked layers, topmost first (as overlayfs wants them).
    pub lower: Vec<PathBuf>,
    /// Holds `upper` and `work`; made if absent, so that a restarted container may reuse or get a fresh one.
    pub scratch: PathBuf,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Unique within the pod's life: `<name>-<attempt>` for instance.
    pub id: String,
    /// Process, mounts, resources, seccomp, masks, capabilities: as OCI says it. `root.path` is ignored in favour of
    /// `rootfs`; namespaces that the pod shares are joined whatever the spec lists; `linux.cgroupsPath` is relative to
    /// the hierarchies' roots.
    pub spec: Spec,
    /// The root filesystem.
    pub rootfs: Rootfs,
    /// The log file, written as `RFC3339Nano stdout|stderr P|F text`. The shim rotates it.
    pub log_path: PathBuf,
    /// Rotate when the log file is larger, in bytes; keep `log_files` files in all.
    pub log_max_bytes: u64,
    /// How many log files to keep, the current one included.
    pub log_files: u32,
    /// Keep stdin open for attach; else it is /dev/null.
    pub stdin: bool,
    /// Close stdin after the first attach session ends.
    pub stdin_once: bool,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Exit {
    /// The exit status, or 128 + signal.
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    pub finished_at: i64,
}

/// A container as the shim sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ContainerState {
    pub id: String,
    /// The init's pid in the host's pid namespace.
    pub pid: i32,
    pub started_at: i64,
    /// Set once it has ended. The container stays listed until removed.
    pub exit: Option<Exit>,
}

/// A process to run in a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecConfig {
    /// The container to join.
    pub container: String,
    /// As in `process` of the container's spec; None of args: as given; the rest from the container.
    pub args: Vec<String>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Want a pipe for stdin.
    pub stdin: bool,
}

/// The caller's ends of a process's streams. With a terminal only `stdin` and `stdout` are there (both its master).
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// The terminal's master, for window size changes.
    pub terminal: Option<OwnedFd>,
    /// Becomes readable when the process has ended; then four bytes: the exit code (little endian i32). Whoever closes it
    /// before ends the process. For attach it is `None`.
    pub exit: Option<OwnedFd>,
}

/// Usage of a pod or a container, from its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Stats {
    pub cpu_usage_ns: u64,
    pub memory_usage_bytes: u64,
    pub memory_working_set_bytes: u64,
    pub pids: u64,
}

/// A handle on a pod's shim.
#[derive(Debug)]
pub struct Shim {
    run_dir: PathBuf,
}

impl Shim {
    /// Starts a shim for a pod and waits until its namespaces and cgroups stand. `program` is our own executable, run
    /// as `program shim <run_dir>`.
    pub fn start(program: &Path, config: &PodConfig) -> Result<Self> {
        check_id(&config.id)?;
        let run_dir = &config.run_dir;
        if let Ok(shim) = Self::adopt(run_dir) {
            let text = format!("a shim runs in {} already", shim.run_dir.display());
            return Err(Error::State(text));
        }
        files::make_dir(&run_dir.join("containers"))?;
        files::write(&run_dir.join("pod.json"), &PodFile { version: PROTOCOL_VERSION, config: config.clone() })?;
        // Without pre-exec code this is posix_spawn, which is safe beside other threads.
        let output =
            Command::new(program).arg("shim").arg(run_dir).stdin(Stdio::null()).stderr(Stdio::piped()).output();
        let output = output.map_err(|e| Error::System(format!("run {}", program.display()), e))?;
        if output.status.success() {
            return Ok(Self { run_dir: run_dir.clone() });
        }
        // What the shim says when it cannot start is our own error as JSON; else it is somebody else's words.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match said.lines().last().and_then(|line| serde_json::from_str::<Failure>(line).ok()) {
            Some(failure) => Err(failure.into()),
            None => Err(Error::State(format!("the shim did not start ({}): {}", output.status, said.trim()))),
        }
    }

    /// Finds a running shim by its run directory, of this or an older version; `NotFound` where there is none alive
    /// (its exit files may still be read with [`Shim::exits`]).
    pub fn adopt(run_dir: &Path) -> Result<Self> {
        protocol::call(run_dir, Call::Hello)?;
        Ok(Self { run_dir: run_dir.to_owned() })
    }

    /// The pod's configuration, as it was started.
    pub fn config(&self) -> Result<PodConfig> {
        files::read::<PodFile>(&self.run_dir.join("pod.json")).map(|file| file.config)
    }

    /// What a shim left on disk about its containers, also when it is dead. A container without an exit record whose
    /// shim is dead has ended in an unknown way: its `exit` is `None`.
    pub fn exits(run_dir: &Path) -> Result<Vec<ContainerState>> {
        let dir = run_dir.join("containers");
        let list = std::fs::read_dir(&dir).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound(run_dir.display().to_string()),
            _ => Error::System(format!("read {}", dir.display()), e),
        })?;
        let mut states = Vec::new();
        for path in list.filter_map(|entry| entry.ok().map(|e| e.path())) {
            if path.extension().is_some_and(|e| e == "state") {
                states.push(files::read::<ContainerState>(&path)?);
            }
        }
        states.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(states)
    }

    /// Creates and starts a container; returns once exec has happened. The error names the stage that failed; `State`
    /// where the shim has a container of that id.
    pub fn start_container(&self, config: &ContainerConfig) -> Result<ContainerState> {
        check_id(&config.id)?;
        let path = self.run_dir.join("containers").join(format!("{}.json", config.id));
        // The file alone says nothing: whoever wrote it may have been killed before he asked.
        if path.exists() && self.containers()?.iter().any(|c| c.id == config.id) {
            return Err(Error::State(format!("container {} exists already", config.id)));
        }
        files::write(&path, &ContainerFile { version: PROTOCOL_VERSION, config: config.clone() })?;
        let started = self.ask(Call::Start { container: config.id.clone() });
        if started.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        started
    }

    /// All containers, ended ones included.
    pub fn containers(&self) -> Result<Vec<ContainerState>> {
        self.ask(Call::Containers)
    }

    /// Sends a signal to a container's init, or with `all` to every process of its cgroup. A container that has
    /// ended is no error.
    pub fn signal(&self, container: &str, signal: i32, all: bool) -> Result<()> {
        self.ask(Call::Signal { container: container.to_owned(), signal, all })
    }

    /// Forgets an ended container and removes its cgroup; the scratch directory and the log stay. `State` while it
    /// runs, no error where it is already gone.
    pub fn remove_container(&self, container: &str) -> Result<()> {
        self.ask(Call::Remove { container: container.to_owned() })
    }

    /// Runs a process in a container. With a terminal, `stdin`, `stdout` and `terminal` are its master.
    pub fn exec(&self, config: &ExecConfig) -> Result<Streams> {
        let (_, fds) = protocol::call(&self.run_dir, Call::Exec { config: config.clone() })?;
        let mut fds = fds.into_iter();
        let exit = fds.next();
        if config.tty {
            return master(fds.next(), None, exit);
        }
        let stdin = if config.stdin { fds.next() } else { None };
        Ok(Streams { stdin, stdout: fds.next(), stderr: fds.next(), terminal: None, exit })
    }

    /// The streams of a running container's init: its output from now on, and its stdin where `stdin` is asked for
    /// and the container keeps one open. A session that does not read its pipe is ended when the pipe is full. With a
    /// terminal, `stdin` and `terminal` are its master and `stdout` is a copy of what it shows.
    pub fn attach(&self, container: &str, stdin: bool) -> Result<Streams> {
        let (value, fds) = protocol::call(&self.run_dir, Call::Attach { container: container.to_owned(), stdin })?;
        let parts: AttachParts = serde_json::from_value(value).map_err(|e| Error::State(e.to_string()))?;
        let mut fds = fds.into_iter();
        let stdout = fds.next();
        let stderr = if parts.stderr { fds.next() } else { None };
        let input = if parts.stdin { fds.next() } else { None };
        if parts.terminal {
            let terminal = fds.next();
            return Ok(Streams { stdin: input, stdout, stderr: None, terminal, exit: None });
        }
        Ok(Streams { stdin: input, stdout, stderr, terminal: None, exit: None })
    }

    /// Closes and reopens the log file (after somebody moved it).
    pub fn reopen_log(&self, container: &str) -> Result<()> {
        self.ask(Call::ReopenLog { container: container.to_owned() })
    }

    /// New limits for a container or (`None`) the pod.
    pub fn update(&self, container: Option<&str>, resources: &LinuxResources) -> Result<()> {
        self.ask(Call::Update { container: container.map(str::to_owned), resources: Box::new(resources.clone()) })
    }

    /// Usage of a container or (`None`) the pod.
    pub fn stats(&self, container: Option<&str>) -> Result<Stats> {
        self.ask(Call::Stats { container: container.map(str::to_owned) })
    }

    /// A non-blocking descriptor that becomes readable whenever the state of some container changed; read it empty,
    /// then ask [`Shim::containers`]. Level, not edge: a change between two reads is not lost. It hangs up (a read of
    /// nothing) when the shim ends.
    pub fn changes(&self) -> Result<OwnedFd> {
        let (_, fds) = protocol::call(&self.run_dir, Call::Changes)?;
        fds.into_iter().next().ok_or_else(|| Error::State("the shim sent no descriptor".to_owned()))
    }

    /// The network namespace that the shim is in. Of a pod with a user namespace it is a new one that has nothing but a
    /// loopback, which is down.
    pub fn network(&self) -> Result<OwnedFd> {
        let (_, fds) = protocol::call(&self.run_dir, Call::Network)?;
        fds.into_iter().next().ok_or_else(|| Error::State("the shim sent no descriptor".to_owned()))
    }

    /// Kills everything in the pod, removes mounts, cgroups and the run directory, ends the shim. Idempotent; works
    /// also where the shim is dead (then from the files in `run_dir`).
    pub fn destroy(run_dir: &Path) -> Result<()> {
        destroy::destroy(run_dir)
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<T> {
        let (value, _) = protocol::call(&self.run_dir, call)?;
        serde_json::from_value(value).map_err(|e| Error::State(format!("the shim's answer: {e}")))
    }
}

/// Which descriptors come with the answer to attach, after stdout.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AttachParts {
    pub(crate) stderr: bool,
    pub(crate) stdin: bool,
    pub(crate) terminal: bool,
}

fn master(master: Option<OwnedFd>, stderr: Option<OwnedFd>, exit: Option<OwnedFd>) -> Result<Streams> {
    let master = master.ok_or_else(|| Error::State("the shim sent no terminal".to_owned()))?;
    let copy = || master.try_clone().map_err(|e| Error::System("copy the terminal".to_owned(), e));
    Ok(Streams { stdin: Some(copy()?), stdout: Some(copy()?), stderr, terminal: Some(master), exit })
}
