//! The root of a container that lives in a mount namespace of somebody else's, the host's or one that it has joined: it is
//! mounted there, and has to go again without taking anything else along.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::sys::{self, Forked};
use crate::{Error, Result, failed};

/// STATX_MNT_ID_UNIQUE of linux/stat.h (Linux 6.8): a number that no other mount gets until the machine goes down. Older
/// kernels answer with one that can be given again.
const UNIQUE: StatxFlags = StatxFlags::MNT_ID.union(StatxFlags::from_bits_retain(0x4000));

/// A root and where it is attached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Attached {
    /// The place in its namespace.
    place: PathBuf,
    /// The number of the mount.
    mount: u64,
    /// The namespace as the specification names it; without a name it is that of whoever runs the commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<PathBuf>,
}

impl Attached {
    /// Notes a mount that is going to be attached.
    pub(super) fn new(mount: impl AsFd, place: PathBuf, namespace: Option<PathBuf>) -> Result<Self> {
        let mount = number(mount).map_err(failed(|| format!("root.path: look at {}", place.display())))?;
        Ok(Self { place, mount, namespace })
    }

    /// Opens the namespace while it can be found: by a process of the container, or by its name. `None` where it is ours, or
    /// gone.
    pub(super) fn namespace(&self, pid: Option<i32>) -> Option<OwnedFd> {
        let name = self.namespace.as_ref()?;
        let path = pid.map_or_else(|| name.clone(), |pid| format!("/proc/{pid}/ns/mnt").into());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    }

    /// Takes the root away with all that is mounted below it. What else lies there by now stays. A process of its own does
    /// it: there is no way back from a mount namespace without the right to it.
    pub(super) fn detach(&self, namespace: Option<&OwnedFd>) -> Result<()> {
        if self.namespace.is_some() && namespace.is_none() {
            return Ok(());
        }
        let what = || format!("root.path: detach from {}", self.place.display());
        let process = match sys::fork(0, None).map_err(|e| Error::System(what(), e))? {
            Forked::Parent { pidfd, .. } => pidfd,
            Forked::Child => {
                let done = detach(&self.place, self.mount, namespace);
                sys::exit_now(done.map_or_else(Errno::raw_os_error, |()| 0))
            }
        };
        let ended = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED).map_err(failed(what))?;
        match ended.and_then(|status| status.exit_status()) {
            Some(0) | None => Ok(()),
            Some(errno) => Err(Error::System(what(), std::io::Error::from_raw_os_error(errno))),
        }
    }
}

fn detach(place: &Path, mount: u64, namespace: Option<&OwnedFd>) -> rustix::io::Result<()> {
    if let Some(namespace) = namespace {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rustix::fs::open(place, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other?,
    };
    if number(&root)? != mount {
        return Ok(());
    }
    rustix::process::fchdir(&root)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)
}

fn number(mount: impl AsFd) -> rustix::io::Result<u64> {
    rustix::fs::statx(mount, "", AtFlags::EMPTY_PATH, UNIQUE).map(|stat| stat.stx_mnt_id)
}
