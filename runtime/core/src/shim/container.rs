//! A container of the pod as the shim keeps it: its streams, its log, its state on disk.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::log::{Lines, Log, Stream, rfc3339};
use crate::cgroup::Group;
use crate::pod::{ContainerConfig, ContainerState, Exit};
use crate::process::Prepared;
use crate::seccomp::{self, Cache};
use crate::state::{SPECIFICATION, State};
use crate::{Error, Result, failed, files};

/// Room for output that an attach session has not read yet, in bytes.
const ATTACH_PIPE_BYTES: usize = 1 << 20;
/// Reads of one output at a container's end: more than a pipe holds.
const MAX_DRAIN_READS: usize = 256;
/// Sessions on one container.
const MAX_SESSIONS: usize = 32;

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) config: ContainerConfig,
    pub(super) state: ContainerState,
    pub(super) group: Rc<Group>,
    pub(super) pidfd: OwnedFd,
    /// Its first process has a pid namespace of its own: when that process ends, all have.
    pub(super) own_pid_namespace: bool,
    pub(super) outputs: Vec<Output>,
    pub(super) log: Log,
    /// Our end of its stdin.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
    /// Kills for want of memory before the container started (its cgroup may be older).
    pub(super) oom_kills_before: u64,
}

/// A stream we read and who wants copies.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) fd: OwnedFd,
    pub(super) stream: Stream,
    lines: Lines,
    sessions: Vec<OwnedFd>,
}

/// What became of reading an output.
pub(super) enum Pumped {
    /// Nothing more for now.
    Empty,
    /// There may be more.
    More,
    /// It has ended.
    Closed,
}

/// The ends of a container's streams: the child's, and ours.
pub(super) struct Ends {
    pub(super) child: [OwnedFd; 3],
    pub(super) stdin: Option<OwnedFd>,
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
}

impl Ends {
    /// Pipes for a container without a terminal; with one, /dev/null until the terminal takes their place.
    pub(super) fn new(config: &ContainerConfig, terminal: bool) -> Result<Self> {
        let what = || "make pipes".to_owned();
        if terminal {
            return Ok(Self { child: [null()?, null()?, null()?], stdin: None, outputs: Vec::new() });
        }
        let (stdin, ours) = if config.stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed(what))?;
            (read, Some(write))
        } else {
            (null()?, None)
        };
        let (out, stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(failed(what))?;
        let (err, stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(failed(what))?;
        Ok(Self {
            child: [stdin, stdout, stderr],
            stdin: ours,
            outputs: vec![(Stream::Stdout, out), (Stream::Stderr, err)],
        })
    }

    pub(super) fn child(&self) -> [BorrowedFd<'_>; 3] {
        let [stdin, stdout, stderr] = &self.child;
        [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
    }
}

pub(super) fn null() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed(|| "open /dev/null".to_owned()))
}

impl Output {
    pub(super) fn new(stream: Stream, fd: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true).map_err(failed(|| "make a stream non-blocking".to_owned()))?;
        Ok(Self { fd, stream, lines: Lines::new(stream), sessions: Vec::new() })
    }

    /// Reads once: to the log, and to whoever is attached.
    pub(super) fn pump(&mut self, log: &mut Log, buffer: &mut [u8]) -> Pumped {
        let n = match rustix::io::read(&self.fd, &mut *buffer) {
            Ok(0) => return self.close(log),
            Ok(n) => n,
            Err(Errno::AGAIN) => return Pumped::Empty,
            Err(Errno::INTR) => return Pumped::More,
            // The other side of a terminal is closed.
            Err(_) => return self.close(log),
        };
        let data = buffer.get(..n).unwrap_or_default();
        let (now, mut records) = (files::now(), Vec::with_capacity(n + 64));
        self.lines.push(data, now, &mut records);
        log.write(&records, now);
        // A session that does not keep up is ended, the container is never slowed down.
        self.sessions.retain(|session| matches!(rustix::io::write(session, data), Ok(written) if written == n));
        Pumped::More
    }

    fn close(&mut self, log: &mut Log) -> Pumped {
        let (now, mut records) = (files::now(), Vec::new());
        self.lines.finish(now, &mut records);
        log.write(&records, now);
        self.sessions.clear();
        Pumped::Closed
    }

    fn session(&mut self) -> Result<OwnedFd> {
        let what = || "make an attach pipe".to_owned();
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(Error::State(format!("{MAX_SESSIONS} sessions are attached already")));
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed(what))?;
        let _ = fcntl_setpipe_size(&write, ATTACH_PIPE_BYTES);
        rustix::io::ioctl_fionbio(&write, true).map_err(failed(what))?;
        self.sessions.push(write);
        Ok(read)
    }
}

impl Container {
    /// Takes what is readable at the container's end, so that whoever learns of the end finds all of the log. Somebody
    /// else may still hold the pipe and write: then only so much.
    pub(super) fn drain(&mut self, buffer: &mut [u8]) {
        for output in &mut self.outputs {
            for _ in 0..MAX_DRAIN_READS {
                if !matches!(output.pump(&mut self.log, buffer), Pumped::More) {
                    break;
                }
            }
        }
    }

    /// New descriptors for an attach session: copies of output, then stdin, then the terminal.
    pub(super) fn attach(&mut self, stdin: bool) -> Result<(crate::pod::AttachParts, Vec<OwnedFd>)> {
        if self.state.exit.is_some() {
            return Err(Error::State(format!("container {} has ended", self.state.id)));
        }
        let mut fds = Vec::new();
        for output in &mut self.outputs {
            fds.push(output.session()?);
        }
        let stderr = fds.len() > 1;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|e| Error::System("copy a descriptor".to_owned(), e));
        let mut has_stdin = false;
        if stdin {
            // With stdin_once the session's end is the only one left, so its end is the container's end of file.
            let end = match &self.terminal {
                Some(terminal) if self.config.stdin => Some(copy(terminal)?),
                _ if self.config.stdin_once => self.stdin.take(),
                _ => self.stdin.as_ref().map(copy).transpose()?,
            };
            has_stdin = end.is_some();
            fds.extend(end);
        }
        if let Some(terminal) = &self.terminal {
            fds.push(copy(terminal)?);
        }
        Ok((crate::pod::AttachParts { stderr, stdin: has_stdin, terminal: self.terminal.is_some() }, fds))
    }

    /// Records the end.
    pub(super) fn finish(&mut self, code: i32, signal: Option<i32>, oom_kills: u64, run_dir: &Path) {
        let oom_killed = oom_kills > self.oom_kills_before && code != 0;
        let started_at = self.state.started_at;
        self.state.exit = Some(Exit { code, signal, oom_killed, started_at, finished_at: files::now() });
        self.stdin = None;
        let _ = files::write(&state_path(run_dir, &self.state.id), &self.state);
    }
}

/// Takes the listener of a process to the agent that the container's filter names.
pub(super) fn notify(config: &ContainerConfig, run_dir: &Path, pid: i32, listener: &OwnedFd) -> Result<()> {
    let Some(linux) = config.spec.linux() else { return Ok(()) };
    let state = State {
        oci_version: SPECIFICATION,
        id: config.id.clone(),
        pid,
        status: "running",
        bundle: run_dir.to_owned(),
        rootfs: None,
        created: rfc3339(files::now()),
        annotations: config.spec.annotations().clone().unwrap_or_default().into_iter().collect(),
    };
    seccomp::notify(linux, &state, pid, listener)
}

pub(super) fn config_path(run_dir: &Path, id: &str) -> PathBuf {
    run_dir.join("containers").join(format!("{id}.json"))
}

pub(super) fn state_path(run_dir: &Path, id: &str) -> PathBuf {
    run_dir.join("containers").join(format!("{id}.state"))
}

/// A process of the spec, with its filter from `filters`. `users`: it is in a user namespace.
pub(super) fn prepare(
    config: &ContainerConfig,
    filters: &mut Cache,
    args: Option<&[String]>,
    terminal: Option<bool>,
    users: bool,
) -> Result<Prepared> {
    let process = config.spec.process().as_ref().ok_or_else(|| Error::Invalid("process: missing".to_owned()))?;
    let mut process = process.clone();
    if let Some(args) = args {
        process.set_args(Some(args.to_vec()));
    }
    if let Some(terminal) = terminal {
        process.set_terminal(Some(terminal));
    }
    // Nothing is inheritable but what is ambient, whatever the spec says (CVE-2022-29162).
    if let Some(mut capabilities) = process.capabilities().clone() {
        let ambient = capabilities.ambient().clone();
        capabilities.set_inheritable(ambient);
        process.set_capabilities(Some(capabilities));
    }
    let seccomp = config.spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    Prepared::of(&process, seccomp.map(|seccomp| filters.program(seccomp)).transpose()?, users)
}
