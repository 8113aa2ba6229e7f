//! Paths below a container's root. One O_PATH descriptor stands for the root, and every look-up goes through openat2
//! with RESOLVE_IN_ROOT, so no symbolic link of an image leads out (CVE-2021-30465 and its kin).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2};
use rustix::io::Errno;

use crate::{Result, failed};

/// openat2 gives EAGAIN while somebody renames in the path: how long to try again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A container's root directory.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Opens a path inside, as a place only (O_PATH) unless flags say more.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, flags, ResolveFlags::empty())
    }

    /// As [`Root::open`], but refuses every symbolic link on the way: for /proc and /sys, which an image must not move.
    pub(crate) fn open_plain(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, flags, ResolveFlags::NO_SYMLINKS)
    }

    fn open_with(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        let start = Instant::now();
        loop {
            match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if start.elapsed() < PATIENCE => {}
                other => return other,
            }
        }
    }

    /// The directory at a path, made with its parents where absent.
    pub(crate) fn make_dir(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("make directory {}", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(failed(what)),
        }
        let mut done = PathBuf::from("/");
        let mut dir = self.open(&done, flags).map_err(failed(what))?;
        for component in path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir)) {
            if let Component::Normal(name) = component {
                match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(failed(what)(e)),
                }
            }
            done.push(component);
            dir = self.open(&done, flags).map_err(failed(what))?;
        }
        Ok(dir)
    }

    /// The file at a path, made empty with its parents where absent.
    pub(crate) fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("make file {}", path.display());
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(failed(what)),
        }
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        match rustix::fs::openat(&dir, &name, flags, Mode::from_raw_mode(0o644)) {
            Ok(_) | Err(Errno::EXIST) => self.open(path, OFlags::PATH).map_err(failed(what)),
            Err(e) => Err(failed(what)(e)),
        }
    }

    /// The directory a path is in (made where absent) and the path's last name.
    pub(crate) fn parent(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let name =
            path.file_name().ok_or_else(|| crate::Error::Invalid(format!("{} names no file", path.display())))?;
        Ok((self.make_dir(path.parent().unwrap_or(Path::new("/")))?, PathBuf::from(name)))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a descriptor is a directory.
pub(crate) fn is_dir(fd: impl AsFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

/// Whether a descriptor is the character device with this number.
pub(crate) fn is_device(fd: impl AsFd, major: u32, minor: u32) -> rustix::io::Result<bool> {
    let stat = fstat(fd)?;
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(character && stat.st_rdev == rustix::fs::makedev(major, minor))
}
