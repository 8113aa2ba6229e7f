//! The pod shim: one thread, parent of every container of a pod.
//!
//! The spawned process runs itself again from a read-only mount, forks the shim, and waits until the pod stands. The
//! shim joins the pod's network, IPC and UTS namespaces itself, so that containers are born in them.

mod container;
pub(crate) mod log;
mod pause;
mod server;
mod users;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::getpid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::pod::{PROTOCOL_VERSION, PodConfig};
use crate::protocol::{Failure, PodFile, ShimFile};
use crate::sys::{self, Forked};
use crate::{Error, Result, failed, files, protect};

/// Runs the shim of the pod whose configuration stands in `run_dir`: `trimtab shim <run_dir>`. Must be called before
/// any other thread is started. Returns in the spawning process once the pod stands (or failed); the shim itself goes on
/// in the background.
pub fn main(run_dir: &Path) -> ExitCode {
    protect::run_from_read_only_mount();
    match launch(run_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = serde_json::to_string(&Failure::from(error)).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Forks the shim and waits for its word.
fn launch(run_dir: &Path) -> Result<()> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(failed(|| "make a pipe".to_owned()))?;
    match sys::fork(0, None).map_err(|e| Error::System("fork the shim".to_owned(), e))? {
        Forked::Child => {
            drop(ours);
            let code = i32::from(run(run_dir, theirs).is_err());
            sys::exit_now(code)
        }
        Forked::Parent { .. } => {
            drop(theirs);
            let mut said = String::new();
            let read = std::fs::File::from(ours).read_to_string(&mut said);
            read.map_err(|e| Error::System("wait for the shim".to_owned(), e))?;
            match said.as_str() {
                "ready" => Ok(()),
                _ => Err(serde_json::from_str::<Failure>(&said)
                    .map_or_else(|_| Error::State("the shim ended at once".to_owned()), Error::from)),
            }
        }
    }
}

/// The shim's life.
fn run(run_dir: &Path, ready: OwnedFd) -> Result<()> {
    let mut ready = std::fs::File::from(ready);
    let mut server = match prepare(run_dir) {
        Ok(server) => server,
        Err(error) => {
            let failure = serde_json::to_string(&Failure::from(error)).unwrap_or_default();
            let _ = ready.write_all(failure.as_bytes());
            return Err(Error::State("not started".to_owned()));
        }
    };
    let _ = ready.write_all(b"ready");
    drop(ready);
    server.run()
}

fn prepare(run_dir: &Path) -> Result<server::Server> {
    detach(run_dir)?;
    let file: PodFile = files::read(&run_dir.join("pod.json"))?;
    if file.version > PROTOCOL_VERSION {
        return Err(Error::Invalid(format!("pod.json: version {} is newer than {PROTOCOL_VERSION}", file.version)));
    }
    let config = file.config;
    let users = enter_namespaces(&config)?;
    files::make_dir(&run_dir.join("root"))?;
    let server = server::Server::new(run_dir, config, users)?;
    let pid = getpid().as_raw_pid();
    let start_time = files::start_time(pid).unwrap_or_default();
    files::write(&run_dir.join("shim.json"), &ShimFile { version: PROTOCOL_VERSION, pid, start_time })?;
    Ok(server)
}

/// A session of its own, no terminal, nobody's streams, children's children come to us.
fn detach(run_dir: &Path) -> Result<()> {
    let what = || "detach from the caller".to_owned();
    rustix::process::setsid().map_err(failed(what))?;
    rustix::process::chdir("/").map_err(failed(what))?;
    rustix::process::set_child_subreaper(Some(getpid())).map_err(failed(what))?;
    let _ = rustix::thread::set_name(c"trimtab-shim");
    // Our memory holds secrets of containers (their environment), and entering processes are copies of us.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(failed(what))?;
    // The last one the kernel should pick; where we may not say so, like any other.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    sys::ignore_signal(libc::SIGPIPE);
    sys::ignore_signal(libc::SIGHUP);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed(what))?;
    let log_flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let log =
        rustix::fs::open(run_dir.join("shim.log"), log_flags, Mode::from_raw_mode(0o600)).map_err(failed(what))?;
    for (fd, number) in [(null.as_fd(), 0), (null.as_fd(), 1), (log.as_fd(), 2)] {
        sys::dup_to(fd, number).map_err(|e| Error::System(what(), e))?;
    }
    Ok(())
}

/// Joins the pod's network and makes its other namespaces; answers its user namespace, where it has one. Without a
/// network of its own a pod has the host's names too.
fn enter_namespaces(config: &PodConfig) -> Result<Option<OwnedFd>> {
    let mut new = UnshareFlags::empty();
    let users = config.user_map.map(|map| users::enter(config, map)).transpose()?;
    if let Some(path) = config.network.as_ref().filter(|_| users.is_none()) {
        let what = || format!("network: join {}", path.display());
        let namespace =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed(what))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(failed(what))?;
        new |= UnshareFlags::NEWUTS;
    }
    if !config.host_ipc && users.is_none() {
        new |= UnshareFlags::NEWIPC;
    }
    if !new.is_empty() {
        sys::unshare(new).map_err(failed(|| "make the pod's namespaces".to_owned()))?;
    }
    if config.network.is_some() || users.is_some() {
        rustix::system::sethostname(config.hostname.as_bytes()).map_err(failed(|| "hostname: set".to_owned()))?;
    }
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let proc = proc.map_err(failed(|| "open /proc".to_owned()))?;
    for (name, value) in &config.sysctls {
        crate::proc::write_sysctl(&proc, name, value)?;
    }
    Ok(users)
}
