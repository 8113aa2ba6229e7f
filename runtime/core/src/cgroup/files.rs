//! The files of cgroups, and of processes about theirs.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};

pub(super) fn words(dir: BorrowedFd<'_>, file: &str) -> Vec<String> {
    read(dir, file).map(|text| text.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

/// The text of a control file. (Nobody knows its length before, and most are short.)
pub(crate) fn read(dir: BorrowedFd<'_>, file: impl AsRef<Path>) -> io::Result<String> {
    let file = openat(dir, file.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut part))? {
            0 => break,
            n => text.extend_from_slice(part.get(..n).unwrap_or_default()),
        }
    }
    String::from_utf8(text).map_err(io::Error::other)
}

/// Writes a control file in one write.
pub(crate) fn write(dir: BorrowedFd<'_>, file: impl AsRef<Path>, text: &str) -> io::Result<()> {
    let file = openat(dir, file.as_ref(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, text.as_bytes())?;
    Ok(())
}

/// The cgroup of this process in the hierarchy of a v1 controller or v2.
pub(super) fn own_path() -> PathBuf {
    let own = own_path_of(|line| line.contains(":pids:")).or_else(|| own_path_of(|line| line.starts_with("0::")));
    own.unwrap_or_default()
}

/// The path in a line of cgroup(7)'s /proc/self/cgroup.
pub(super) fn own_path_of(wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find(|line| wanted(line))?.splitn(3, ':').nth(2).map(PathBuf::from)
}
