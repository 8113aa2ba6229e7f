//! What all kinds of entries share: owner, mode, time, extended attributes.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, fchmod, utimensat};
use rustix::io::Errno;

use super::{malformed, shown};
use crate::archive::Member;
use crate::{Error, Result};

/// Longest extended attribute value (XATTR_SIZE_MAX).
const MAX_XATTR_BYTES: usize = 65_536;

/// The metadata of an entry, checked.
pub(super) struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    pub(super) times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    pub(super) fn of(member: &Member, path: &Path) -> Result<Self> {
        let owner = member.owner().map_err(malformed)?;
        let (uid, gid) =
            owner.ok_or_else(|| Error::Malformed(format!("layer: {}: owner out of range", shown(path))))?;
        let (tv_sec, tv_nsec) = member.modified().map_err(malformed)?;
        let time = Timespec { tv_sec, tv_nsec };
        let mut xattrs = Vec::new();
        for (name, value) in member.records("SCHILY.xattr.") {
            xattrs.extend(xattr(name, value, path)?);
        }
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            mode: Mode::from_raw_mode(member.mode().map_err(malformed)?),
            times: Timestamps { last_access: time, last_modification: time },
            xattrs,
        })
    }

    pub(super) fn set_on_open(&self, file: BorrowedFd<'_>, times: bool) -> rustix::io::Result<()> {
        rustix::fs::fchown(file, Some(self.uid), Some(self.gid))?;
        // After chown, which clears set-id bits; capabilities after both.
        fchmod(file, self.mode)?;
        for (name, value) in &self.xattrs {
            match rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e),
            }
        }
        if times { rustix::fs::futimens(file, &self.times) } else { Ok(()) }
    }

    pub(super) fn set_on_node(&self, parent: BorrowedFd<'_>, name: &OsStr, mode: bool) -> rustix::io::Result<()> {
        rustix::fs::chownat(parent, name, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if mode {
            // The node was made just now by us in a directory only root can enter: it is no link.
            rustix::fs::chmodat(parent, name, self.mode, AtFlags::empty())?;
        }
        utimensat(parent, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Gives what was made for a layer that has no entry for it the owner and the mode that it has below; else those of a
/// directory that nobody describes.
pub(super) fn inherit(made: BorrowedFd<'_>, stat: Option<&Stat>) -> rustix::io::Result<()> {
    if let Some(stat) = stat {
        rustix::fs::fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    fchmod(made, Mode::from_raw_mode(stat.map_or(0o755, |stat| stat.st_mode & 0o7777)))
}

/// Gives a copy of a file what the file has.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    inherit(to, Some(stat))?;
    copy_extended(from, to)?;
    rustix::fs::futimens(to, &times(stat))
}

/// The same for what cannot be opened, and whose mode means nothing.
pub(super) fn copy_to_node(parent: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(parent, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec, nanoseconds| Timespec { tv_sec, tv_nsec: i64::try_from(nanoseconds).unwrap_or_default() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn copy_extended(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut names = vec![0; MAX_XATTR_BYTES];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    names.truncate(length);
    let mut value = vec![0; MAX_XATTR_BYTES];
    for name in names.split(|b| *b == 0).filter(|name| is_wanted(name)) {
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty())?;
    }
    Ok(())
}

/// Whether a layer may have an extended attribute. Those that steer overlayfs are not among them.
fn is_wanted(name: &[u8]) -> bool {
    name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") || name == b"security.capability"
}

/// An extended attribute of the entry. Those that steer overlayfs may not come from outside; of the trusted ones none.
fn xattr(name: &[u8], value: &[u8], path: &Path) -> Result<Option<(String, Vec<u8>)>> {
    let refused = |why: &str| {
        let name = String::from_utf8_lossy(name.get(..100).unwrap_or(name)).into_owned();
        Err(Error::Malformed(format!("layer: {}: attribute {name:?} {why}", shown(path))))
    };
    if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
        return refused("is reserved");
    }
    if !is_wanted(name) {
        return Ok(None);
    }
    match std::str::from_utf8(name) {
        Ok(text) if name.len() <= 255 && value.len() <= MAX_XATTR_BYTES && !text.contains('\0') => {
            Ok(Some((text.to_owned(), value.to_owned())))
        }
        Ok(_) => refused("is too large"),
        Err(_) => refused("has no name"),
    }
}
