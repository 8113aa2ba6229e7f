//! A pod as the node agent drives it: a shim process that owns its namespaces and containers.
//!
//! One shim a pod, one thread, parent of every container. The agent talks to it over a SEQPACKET socket in the pod's
//! run directory; all calls here block for at most a few milliseconds unless said otherwise, so callers in async code
//! use a blocking thread. The shim outlives the agent: [`Shim::adopt`] finds it again.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};

use crate::Result;

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
    /// The network namespace to join (a bind-mounted nsfs file), or `None` for the host's.
    pub network: Option<PathBuf>,
    /// The host's IPC namespace instead of one of the pod's own.
    pub host_ipc: bool,
    /// The host's pid namespace.
    pub host_pid: bool,
    /// One pid namespace for all containers, with a built-in reaping init.
    pub shared_pid: bool,
    /// A user namespace for the pod: (inside, outside, length) for uids and gids alike.
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
    /// Becomes readable when the process has ended; then four bytes: the exit code (little endian i32). For attach it
    /// is `None`.
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
        let _ = program;
        Err(absent(&config.run_dir))
    }

    /// Finds a running shim by its run directory, of this or an older version; `NotFound` where there is none alive
    /// (its exit files may still be read with [`Shim::exits`]).
    pub fn adopt(run_dir: &Path) -> Result<Self> {
        Err(absent(run_dir))
    }

    /// The pod's configuration, as it was started.
    pub fn config(&self) -> Result<PodConfig> {
        Err(absent(&self.run_dir))
    }

    /// What a shim left on disk about its containers, also when it is dead. A container without an exit record whose
    /// shim is dead has ended in an unknown way: its `exit` is `None`.
    pub fn exits(run_dir: &Path) -> Result<Vec<ContainerState>> {
        Err(absent(run_dir))
    }

    /// Creates and starts a container; returns once exec has happened. The error names the stage that failed.
    pub fn start_container(&self, config: &ContainerConfig) -> Result<ContainerState> {
        let _ = config;
        Err(absent(&self.run_dir))
    }

    /// All containers, ended ones included.
    pub fn containers(&self) -> Result<Vec<ContainerState>> {
        Err(absent(&self.run_dir))
    }

    /// Sends a signal to a container's init, or with `all` to every process of its cgroup. A container that has
    /// ended is no error.
    pub fn signal(&self, container: &str, signal: i32, all: bool) -> Result<()> {
        let _ = (container, signal, all);
        Err(absent(&self.run_dir))
    }

    /// Forgets an ended container and removes its cgroup; the scratch directory and the log stay. `State` while it
    /// runs, no error where it is already gone.
    pub fn remove_container(&self, container: &str) -> Result<()> {
        let _ = container;
        Err(absent(&self.run_dir))
    }

    /// Runs a process in a container.
    pub fn exec(&self, config: &ExecConfig) -> Result<Streams> {
        let _ = config;
        Err(absent(&self.run_dir))
    }

    /// The streams of a running container's init: its output from now on, and its stdin where `stdin` is asked for
    /// and the container keeps one open. A session that does not read its pipe is ended when the pipe is full.
    pub fn attach(&self, container: &str, stdin: bool) -> Result<Streams> {
        let _ = (container, stdin);
        Err(absent(&self.run_dir))
    }

    /// Closes and reopens the log file (after somebody moved it).
    pub fn reopen_log(&self, container: &str) -> Result<()> {
        let _ = container;
        Err(absent(&self.run_dir))
    }

    /// New limits for a container or (`None`) the pod.
    pub fn update(&self, container: Option<&str>, resources: &LinuxResources) -> Result<()> {
        let _ = (container, resources);
        Err(absent(&self.run_dir))
    }

    /// Usage of a container or (`None`) the pod.
    pub fn stats(&self, container: Option<&str>) -> Result<Stats> {
        let _ = container;
        Err(absent(&self.run_dir))
    }

    /// A non-blocking descriptor that becomes readable whenever the state of some container changed; read it empty,
    /// then ask [`Shim::containers`]. Level, not edge: a change between two reads is not lost. It hangs up (a read of
    /// nothing) when the shim ends.
    pub fn changes(&self) -> Result<OwnedFd> {
        Err(absent(&self.run_dir))
    }

    /// Kills everything in the pod, removes mounts, cgroups and the run directory, ends the shim. Idempotent; works
    /// also where the shim is dead (then from the files in `run_dir`).
    pub fn destroy(run_dir: &Path) -> Result<()> {
        Err(absent(run_dir))
    }
}

fn absent(run_dir: &Path) -> crate::Error {
    crate::Error::NotFound(run_dir.display().to_string())
}
