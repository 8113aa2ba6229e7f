//! A root that cannot be pivoted, since the one before is the initramfs (pivot_root(2), Notes): it is moved over that, and
//! what else the host has mounted goes.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags};

use crate::{Error, Result, cgroup, failed};

/// Makes an attached mount the root of its namespace and of this process. `proc` is a /proc to look at mounts with.
///
/// Nothing leads to the old root from here, but who may mount in this namespace can take the new one away from over it. So
/// everything that is mounted on the old one is unmounted before; where that is not allowed, in a user namespace, an empty
/// file system lies over it.
pub(crate) fn enter(root: BorrowedFd<'_>, proc: &OwnedFd) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open("/", flags, Mode::empty()).map_err(failed(|| "open /".to_owned()))?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(root, "", &old, "", both).map_err(failed(|| "move the root to /".to_owned()))?;
    let what = || "read the mounts".to_owned();
    let [new_id, old_id] = [number(root).map_err(failed(what))?, number(old.as_fd()).map_err(failed(what))?];
    let table = cgroup::read(proc.as_fd(), "self/mountinfo").map_err(|e| Error::System(what(), e))?;
    let others = table.lines().filter_map(Line::parse).filter(|line| line.parent == old_id && line.id != new_id);
    rustix::process::fchdir(&old).map_err(failed(|| "enter the old root".to_owned()))?;
    for line in others {
        let place = line.place.strip_prefix("/").unwrap_or(&line.place);
        // Not what lies on the root itself: the new one does.
        if !place.as_os_str().is_empty() {
            take_away(place)?;
        }
    }
    crate::rootfs::enter_below(root)
}

/// Takes away all that is mounted at a place of the old root, or hides it.
fn take_away(place: &Path) -> Result<()> {
    let what = || format!("unmount /{} of the host", place.display());
    loop {
        match rustix::mount::unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(e) => return Err(failed(what)(e)),
        }
    }
    // There is nothing left, or it is locked to what lies below it (mount_namespaces(7)).
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let left = rustix::fs::open(place, flags, Mode::empty()).map_err(failed(what))?;
    let stat = rustix::fs::statx(&left, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).map_err(failed(what))?;
    if !stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT) {
        return Ok(());
    }
    let hide = || format!("hide /{} of the host", place.display());
    if u32::from(stat.stx_mode) & libc::S_IFMT != libc::S_IFDIR {
        return rustix::mount::mount_bind("/dev/null", place).map_err(failed(hide));
    }
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", place, "tmpfs", flags, None).map_err(failed(hide))
}

/// The number of a mount in mountinfo.
fn number(mount: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    rustix::fs::statx(mount, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|stat| stat.stx_mnt_id)
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Line {
    id: u64,
    parent: u64,
    place: PathBuf,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { id, parent, place: unescape(words.nth(2)?) })
    }
}

/// Spaces, tabs, line ends and backslashes are written as three octal digits behind a backslash.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        match part.split_at_checked(3).and_then(|(code, rest)| Some((u8::from_str_radix(code, 8).ok()?, rest))) {
            Some((byte, rest)) => bytes.extend(std::iter::once(byte).chain(rest.bytes())),
            None => bytes.extend(part.bytes()),
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_are_read() {
        let line = r"36 35 98:0 / /mnt\040of\134x rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(Line::parse(line), Some(Line { id: 36, parent: 35, place: r"/mnt of\x".into() }));
        assert_eq!(Line::parse("36 x 98:0 / /mnt"), None);
        assert_eq!(unescape(r"\0a\"), Path::new("0a"));
    }
}
