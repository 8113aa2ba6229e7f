//! Trees of unpacked layers as a whole. Their depth is the image's choice: paths in them may be longer than the kernel
//! takes (PATH_MAX) and deeper than a process may hold files open.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::Result;
use crate::blob::io_error;

/// Removes a file or a tree; no error where it is absent. Returns the bytes of what was removed.
pub(crate) fn remove(path: &Path) -> Result<u64> {
    let gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    let failed = |e: std::io::Error| if gone(&e) { Ok(0) } else { Err(io_error(path, e)) };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_dir() => fs::remove_file(path).map(|()| metadata.len()).or_else(failed),
        Ok(_) => empty(path).and_then(|bytes| fs::remove_dir(path).map(|()| bytes)).or_else(failed),
        Err(e) => failed(e),
    }
}

/// Empties a directory. What lies two levels down is moved up, so that two directories are open at most.
fn empty(path: &Path) -> std::io::Result<u64> {
    let top = openat(rustix::fs::CWD, path, FLAGS, Mode::empty())?;
    let (mut bytes, mut moved) = (0, 0u64);
    loop {
        let children = names(top.as_fd())?;
        if children.is_empty() {
            return Ok(bytes);
        }
        for (child, is_dir) in children {
            if is_dir {
                bytes += lift(top.as_fd(), &child, &mut moved)?;
                unlinkat(&top, &child, AtFlags::REMOVEDIR)?;
            } else {
                bytes += size(top.as_fd(), &child);
                unlinkat(&top, &child, AtFlags::empty())?;
            }
        }
    }
}

/// Removes the files of a directory below `top` and moves its directories into `top`.
fn lift(top: BorrowedFd<'_>, child: &CStr, moved: &mut u64) -> std::io::Result<u64> {
    let dir = open(top, child)?;
    let mut bytes = 0;
    for (name, is_dir) in names(dir.as_fd())? {
        if !is_dir {
            bytes += size(dir.as_fd(), &name);
            unlinkat(&dir, &name, AtFlags::empty())?;
            continue;
        }
        // Most are small: an empty one needs no move.
        if unlinkat(&dir, &name, AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        loop {
            let fresh = CString::new(format!(".lifted-{moved}"))?;
            *moved += 1;
            match rustix::fs::renameat_with(&dir, &name, top, &fresh, rustix::fs::RenameFlags::NOREPLACE) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                // Not every file system knows the flag.
                Err(Errno::INVAL) => {
                    renameat(&dir, &name, top, &fresh)?;
                    break;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(bytes)
}

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open(at: BorrowedFd<'_>, name: &CStr) -> std::io::Result<OwnedFd> {
    Ok(openat(at, name, FLAGS, Mode::empty())?)
}

/// What is in a directory, and whether each is one.
fn names(dir: BorrowedFd<'_>) -> std::io::Result<Vec<(CString, bool)>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_name() == c"." || entry.file_name() == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            kind => kind,
        };
        all.push((entry.file_name().to_owned(), kind == FileType::Directory));
    }
    Ok(all)
}

/// Bytes that go with this name: those of a file that has another name stay.
fn size(dir: BorrowedFd<'_>, name: &CStr) -> u64 {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.ok().filter(|stat| stat.st_nlink == 1).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
}
