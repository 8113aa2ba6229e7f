//! What the agent and a shim say to each other: JSON messages of one packet each, with descriptors beside them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::channel::{receive_any_with_fds, send_with_fds};
use crate::pod::{ContainerConfig, ExecConfig, PROTOCOL_VERSION, PodConfig};
use crate::{Error, Result, failed};

/// No message is larger, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// A call that takes longer has failed: the shim hangs.
const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// A request with the version of the one who asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) version: u32,
    pub(crate) call: Call,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    /// Answers with the shim's version.
    Hello,
    /// Starts the container whose configuration lies in the run directory.
    Start {
        container: String,
    },
    Containers,
    Signal {
        container: String,
        signal: i32,
        all: bool,
    },
    Remove {
        container: String,
    },
    Exec {
        config: ExecConfig,
    },
    Attach {
        container: String,
        stdin: bool,
    },
    ReopenLog {
        container: String,
    },
    Update {
        container: Option<String>,
        resources: Box<LinuxResources>,
    },
    Stats {
        container: Option<String>,
    },
    Changes,
    /// A descriptor of the pod's network namespace.
    Network,
    /// Kills and removes everything, answers, and ends.
    Shutdown,
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Done(serde_json::Value),
    Failed(Failure),
}

/// An [`Error`] on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Failure {
    System { text: String, errno: i32 },
    Invalid(String),
    NotFound(String),
    State(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::System(text, e) => Self::System { text, errno: e.raw_os_error().unwrap_or(libc::EIO) },
            Error::Invalid(text) | Error::Program(text) => Self::Invalid(text),
            Error::NotFound(text) => Self::NotFound(text),
            Error::State(text) => Self::State(text),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::System { text, errno } => Self::System(text, io::Error::from_raw_os_error(errno)),
            Failure::Invalid(text) => Self::Invalid(text),
            Failure::NotFound(text) => Self::NotFound(text),
            Failure::State(text) => Self::State(text),
        }
    }
}

/// A pod's configuration as a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PodFile {
    pub(crate) version: u32,
    pub(crate) config: PodConfig,
}

/// A container's configuration as a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContainerFile {
    pub(crate) version: u32,
    pub(crate) config: ContainerConfig,
}

/// Who the shim is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ShimFile {
    pub(crate) version: u32,
    pub(crate) pid: i32,
    /// Clock ticks since boot (proc_pid_stat(5), field 22): a pid alone may be somebody else's by now.
    pub(crate) start_time: u64,
}

/// One request and its answer.
pub(crate) fn call(run_dir: &Path, call: Call) -> Result<(serde_json::Value, Vec<OwnedFd>)> {
    let socket = dial(run_dir)?;
    let what = || format!("talk to the shim of {}", run_dir.display());
    let request = Request { version: PROTOCOL_VERSION, call };
    let bytes = serde_json::to_vec(&request).map_err(|e| Error::Invalid(e.to_string()))?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(Error::Invalid("the request is too large".to_owned()));
    }
    // A shim that dies meanwhile is one that is not there.
    let lost = |e: io::Error| match e.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Error::NotFound(run_dir.display().to_string()),
        _ => Error::System(what(), e),
    };
    send_with_fds(socket.as_fd(), &bytes, &[]).map_err(lost)?;
    let (bytes, fds) = receive_any_with_fds(socket.as_fd(), MAX_MESSAGE_BYTES).map_err(lost)?;
    if bytes.is_empty() {
        return Err(Error::NotFound(run_dir.display().to_string()));
    }
    match serde_json::from_slice(&bytes).map_err(|e| Error::State(e.to_string()))? {
        Reply::Done(value) => Ok((value, fds)),
        Reply::Failed(failure) => Err(failure.into()),
    }
}

fn dial(run_dir: &Path) -> Result<OwnedFd> {
    let what = || format!("connect to the shim of {}", run_dir.display());
    let absent = || Error::NotFound(run_dir.display().to_string());
    let (socket, address, _dir) = match endpoint(run_dir, SocketFlags::CLOEXEC) {
        Err(Error::System(_, e)) if e.raw_os_error() == Some(libc::ENOENT) => return Err(absent()),
        other => other?,
    };
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(CALL_TIMEOUT)).map_err(failed(what))?;
    match connect(&socket, &address) {
        Ok(()) => Ok(socket),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Err(absent()),
        Err(e) => Err(failed(what)(e)),
    }
}

/// The shim's listening socket.
pub(crate) fn serve(run_dir: &Path) -> Result<OwnedFd> {
    let what = || format!("listen in {}", run_dir.display());
    let (socket, address, _dir) = endpoint(run_dir, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let _ = std::fs::remove_file(run_dir.join("shim.sock"));
    bind(&socket, &address).map_err(failed(what))?;
    listen(&socket, 64).map_err(failed(what))?;
    Ok(socket)
}

/// A socket and the shim's address. A socket's path is bounded at 107 bytes, so it is named through a descriptor of its
/// directory, which has to stay open meanwhile.
fn endpoint(run_dir: &Path, flags: SocketFlags) -> Result<(OwnedFd, SocketAddrUnix, OwnedFd)> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd;
    let what = || format!("open {}", run_dir.display());
    let dir = rustix::fs::open(run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed(what))?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd())).map_err(failed(what))?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed(what))?;
    widen(socket.as_fd());
    Ok((socket, address, dir))
}

/// Room for the largest message.
pub(crate) fn widen(socket: BorrowedFd<'_>) {
    let _ = sockopt::set_socket_send_buffer_size_force(socket, 2 * MAX_MESSAGE_BYTES);
}

/// Whether a text may name a pod or a container: it becomes part of paths.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+');
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(good) {
        return Err(Error::Invalid(format!(
            "invalid character in container ID {id:?}: it does not match [A-Za-z0-9_+-][A-Za-z0-9_+.-]*"
        )));
    }
    Ok(())
}
