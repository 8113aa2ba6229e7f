//! A part of a volume, opened so that no symbolic link leads out of it, also while somebody turns links about.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Tries while somebody renames below the volume (the kernel then answers EAGAIN).
const TRIES: usize = 128;

/// Opens `part` of the volume at `root`; directories that are missing are made.
pub(super) fn open(root: &Path, part: &str) -> io::Result<OwnedFd> {
    let part = Path::new(part);
    if part.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::other(format!("invalid path: {}", part.display())));
    }
    let root = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match below(&root, part.as_os_str()) {
        Err(Errno::NOENT) => make(&root, part),
        result => Ok(result?),
    }
}

fn below(root: &OwnedFd, part: &OsStr) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, part, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Makes each directory that is missing, going down by descriptors.
fn make(root: &OwnedFd, part: &Path) -> io::Result<OwnedFd> {
    let mut at = root.try_clone()?;
    for component in part.components() {
        let name = component.as_os_str();
        at = match below(&at, name) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o750)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                below(&at, name)?
            }
            result => result?,
        };
    }
    Ok(at)
}
