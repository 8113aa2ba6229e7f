//! Paths below a container's root. One O_PATH descriptor stands for the root, and every look-up goes through openat2
//! with RESOLVE_IN_ROOT, so no symbolic link of an image leads out (CVE-2021-30465 and its kin).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, readlinkat};
use rustix::io::Errno;

use crate::{Result, failed};

/// openat2 gives EAGAIN while somebody renames in the path: how long to try again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The magic number of proc (linux/magic.h).
pub(crate) const PROC: i64 = 0x9fa0;

/// Links that lead to links.
const MAX_LINKS: usize = 16;

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

    /// The directory at a path, made with its parents where absent; where a link leads to nothing, there.
    pub(crate) fn make_dir(&self, path: &Path) -> Result<OwnedFd> {
        self.make_dir_after(path, 0)
    }

    fn make_dir_after(&self, path: &Path, links: usize) -> Result<OwnedFd> {
        let what = || format!("make directory {}", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags) {
            Err(Errno::NOENT) if links < MAX_LINKS => {}
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
            dir = match (self.open(&done, flags), component) {
                (Err(Errno::NOENT), Component::Normal(name)) => {
                    let target = readlinkat(&dir, name, Vec::new()).map_err(failed(what))?;
                    done.pop();
                    done.push(std::ffi::OsStr::from_bytes(target.as_bytes()));
                    self.make_dir_after(&done, links + 1)?
                }
                (other, _) => other.map_err(failed(what))?,
            };
        }
        Ok(dir)
    }

    /// As [`Root::make_dir`], but refuses every symbolic link on the way: for directories that an image must not move.
    pub(crate) fn make_plain_dir(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let dir = match self.open_plain(path, flags) {
            Err(Errno::NOENT) => {
                self.make_dir(path)?;
                self.open_plain(path, flags)
            }
            other => other,
        };
        dir.map_err(failed(|| format!("{} must be an ordinary directory", path.display())))
    }

    /// The file at a path, made empty with its parents where absent; where a link leads to nothing, there.
    pub(crate) fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("make file {}", path.display());
        let mut place = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.open(&place, OFlags::PATH) {
                Err(Errno::NOENT) => {}
                other => return other.map_err(failed(what)),
            }
            let (dir, name) = self.parent(&place)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            match rustix::fs::openat(&dir, &name, flags, Mode::from_raw_mode(0o644)) {
                Ok(_) => return self.open(&place, OFlags::PATH).map_err(failed(what)),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(what)(e)),
            }
            // Somebody was quicker, or it is a link.
            if let Ok(target) = readlinkat(&dir, &name, Vec::new()) {
                place.pop();
                place.push(std::ffi::OsStr::from_bytes(target.as_bytes()));
            }
        }
        Err(failed(what)(Errno::LOOP))
    }

    /// A place to cover at a path, whatever is there, be it a link; an empty file where there is nothing. The links of
    /// /proc stay what they are: setup and other runtimes go by them.
    pub(crate) fn make_place(&self, path: &Path) -> Result<OwnedFd> {
        let what = || format!("open {}", path.display());
        let place = match self.open(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => return self.make_file(path),
            other => other.map_err(failed(what))?,
        };
        let link = FileType::from_raw_mode(fstat(&place).map_err(failed(what))?.st_mode) == FileType::Symlink;
        if link && rustix::fs::fstatfs(&place).map_err(failed(what))?.f_type as i64 == PROC {
            return Err(crate::Error::Invalid(format!("mounts: {}: a link of /proc is not covered", path.display())));
        }
        Ok(place)
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
