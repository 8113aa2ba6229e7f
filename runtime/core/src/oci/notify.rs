//! sd_notify(3) across the container's wall: a program in there says that it is ready on a socket of ours, and we pass that
//! on to the socket that our caller was given. What callers know is what runc does: the socket's place in the container,
//! and that `start` (and a detached `run`) waits.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use oci_spec::runtime::{MountBuilder, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{Error, Result, failed};

/// Where the container finds it.
const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";
/// What of a message is read: it is a line or some.
const MAX_BYTES: usize = 4096;
/// How long whoever manages us may take to know what has been said.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// A container's socket, and whom it is for.
#[derive(Debug)]
pub(super) struct Relay {
    socket: UnixDatagram,
    host: UnixDatagram,
}

/// The socket of our caller, if he was given one.
fn host() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}

/// Gives a container that is to be made the place where the socket will be.
pub(super) fn prepare(dir: &Path, spec: &mut Spec) -> Result<()> {
    if host().is_none() {
        return Ok(());
    }
    let place = dir.join("notify");
    let made = fs::DirBuilder::new().mode(0o755).create(&place);
    made.map_err(|e| Error::System(format!("make {}", place.display()), e))?;
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    let mount = MountBuilder::default().destination(INSIDE).typ("bind").source(place).options(options).build();
    let mount = mount.map_err(|e| Error::Invalid(format!("mounts: {INSIDE}: {e}")))?;
    spec.set_mounts(Some(spec.mounts().iter().flatten().cloned().chain([mount]).collect()));
    if let Some(process) = spec.process_mut() {
        let variable = format!("NOTIFY_SOCKET={INSIDE}/{NAME}");
        process.set_env(Some(process.env().iter().flatten().cloned().chain([variable]).collect()));
    }
    Ok(())
}

/// Opens the socket of a container that is about to start. `None`: nobody wants to know.
pub(super) fn listen(dir: &Path) -> Result<Option<Relay>> {
    let Some(host) = host() else { return Ok(None) };
    let place = dir.join("notify");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(&place, flags, Mode::empty()) {
        // Whoever made it was given none.
        Err(Errno::NOENT) => return Ok(None),
        opened => opened.map_err(failed(|| format!("open {}", place.display())))?,
    };
    // By a name that is short enough for a socket.
    let path = format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd());
    let open = || {
        // Of a start that failed.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        socket.set_nonblocking(true)?;
        let host = connect(&host)?;
        Ok(Relay { socket, host })
    };
    open().map(Some).map_err(|e: io::Error| Error::System(format!("NOTIFY_SOCKET {}", host.display()), e))
}

fn connect(host: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match host.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(host)?,
    }
    Ok(socket)
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Relay {
    /// Waits until the container says that it is ready, or has ended; tells, and waits until that is known.
    pub(super) fn wait(&self, pid: i32, pidfd: &OwnedFd) -> Result<()> {
        let what = || "wait until the container is ready".to_owned();
        loop {
            let mut fds = [PollFd::new(self, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(failed(what)(e)),
            }
            let [_, ended] = fds;
            if self.is_ready() {
                return self.tell(pid).and_then(|()| self.barrier()).map_err(|e| Error::System("tell".to_owned(), e));
            }
            if !ended.revents().is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes what the container says: whether it is that it is ready. Nothing else of it is for the host.
    pub(super) fn is_ready(&self) -> bool {
        let mut message = [0; MAX_BYTES];
        while let Ok(n) = self.socket.recv(&mut message) {
            if message.get(..n).unwrap_or_default().split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return true;
            }
        }
        false
    }

    /// Tells that it is ready, and whom to look at from now on.
    pub(super) fn tell(&self, pid: i32) -> io::Result<()> {
        self.host.send(b"READY=1\n")?;
        self.host.send(format!("MAINPID={pid}\n").as_bytes()).map(drop)
    }

    /// Waits until what was said is known: the other side closes what it was given (sd_notify_barrier(3)).
    fn barrier(&self) -> io::Result<()> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        crate::channel::send_with_fds(self.host.as_fd(), b"BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        // Who knows no barriers keeps us waiting for a while.
        poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&PATIENCE))?;
        Ok(())
    }
}
