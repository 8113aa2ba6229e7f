//! What all kinds of entries share: owner, mode, time, extended attributes.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, utimensat};
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

/// An extended attribute of the entry. Those that steer overlayfs may not come from outside; of the trusted ones none.
fn xattr(name: &[u8], value: &[u8], path: &Path) -> Result<Option<(String, Vec<u8>)>> {
    let refused = |why: &str| {
        let name = String::from_utf8_lossy(name.get(..100).unwrap_or(name)).into_owned();
        Err(Error::Malformed(format!("layer: {}: attribute {name:?} {why}", shown(path))))
    };
    if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
        return refused("is reserved");
    }
    let wanted = name.starts_with(b"user.") || name == b"security.capability";
    if !wanted {
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
