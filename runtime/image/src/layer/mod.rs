//! The layer applier: a tar stream becomes a directory in overlayfs form. Everything happens relative to one directory
//! descriptor, no symbolic link is followed on the way to a parent, and nothing but files of the layer is touched.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid, XattrFlags, fchmod, linkat, mkdirat, mknodat,
    openat, openat2, symlinkat,
};
use rustix::io::Errno;
use tar::EntryType;

use crate::archive::{Member, Members};
use crate::blob::{Hashing, io_error};
use crate::{Error, Result};

mod attributes;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod mutations;
mod stream;

use attributes::Attributes;
pub(crate) use stream::{Bounded, decompress};

/// No honest layer has more entries.
const MAX_ENTRIES: usize = 2_000_000;
/// Bytes of the paths of all directories of a layer, which are held in memory.
const MAX_DIRECTORY_NAMES_BYTES: usize = 256 << 20;
/// Longest path and link target, in bytes (PATH_MAX).
const MAX_PATH_BYTES: usize = 4096;
/// What makes a directory hide what is below, and its name on overlays that are mounted in a user namespace (`userxattr`).
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Unpacks a compressed layer into `staged`, which must not exist. `parents` are the layers below, topmost first: a
/// directory that the layer only passes through takes its owner and mode from them. `diff` is the DiffID to be met, and
/// `max_bytes` bounds the uncompressed archive. Returns how many bytes that has.
pub(crate) fn unpack(
    blob: impl Read + Send + 'static,
    staged: &Path,
    parents: &[PathBuf],
    diff: &str,
    max_bytes: u64,
) -> Result<u64> {
    DirBuilder::new().mode(0o755).create(staged).map_err(|e| io_error(staged, e))?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(staged, flags, Mode::empty()).map_err(|e| io_error(staged, e.into()))?;
    if let Some(parent) = parents.first() {
        inherit(parent, Path::new(""), root.as_fd()).map_err(|e| io_error(parent, e.into()))?;
    }
    let mut stream = Hashing::new(Bounded { inner: decompress(blob)?, left: max_bytes });
    let mut applier = Applier { root, parents, times: BTreeMap::new(), names_bytes: 0, left: max_bytes };
    applier.apply(&mut stream)?;
    applier.finish()?;
    // What follows the archive's end is a part of the layer, too.
    io::copy(&mut stream, &mut io::sink()).map_err(malformed)?;
    let (_, got, bytes) = stream.finish();
    if got != diff {
        return Err(Error::Digest { digest: diff.to_owned(), got });
    }
    Ok(bytes)
}

struct Applier<'a> {
    root: OwnedFd,
    parents: &'a [PathBuf],
    /// Times of directories, set last.
    times: BTreeMap<PathBuf, Timestamps>,
    names_bytes: usize,
    /// Bytes that sparse files may still pretend to have.
    left: u64,
}

impl Applier<'_> {
    fn apply(&mut self, stream: &mut impl Read) -> Result<()> {
        let mut members = Members::new(stream);
        let mut count = 0;
        while let Some(member) = members.next().map_err(malformed)? {
            count += 1;
            if count > MAX_ENTRIES {
                return Err(Error::Malformed(format!("layer: more than {MAX_ENTRIES} entries")));
            }
            self.entry(&member, &mut members)?;
        }
        Ok(())
    }

    fn entry(&mut self, member: &Member, data: &mut impl Read) -> Result<()> {
        let path = clean(&member.path)?;
        let attributes = Attributes::of(member, &path)?;
        let name = match path.file_name() {
            Some(name) => name.to_owned(),
            None if member.kind == EntryType::Directory => return self.directory(&path, attributes),
            None => return Err(Error::Malformed("layer: the root is no directory".to_owned())),
        };
        let parent = self.parent(&path)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(&path, hidden, parent.as_fd());
        }
        self.unhide(&path, &name, parent.as_fd(), member.kind)?;
        match member.kind {
            EntryType::Directory => self.directory(&path, attributes),
            _ => self.create(member, data, &path, &name, parent.as_fd(), &attributes),
        }
    }

    fn create(
        &mut self,
        member: &Member,
        data: &mut impl Read,
        path: &Path,
        name: &OsStr,
        parent: BorrowedFd<'_>,
        attributes: &Attributes,
    ) -> Result<()> {
        let failed = |e: Errno| refused(path, e);
        match member.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
                return self.fill(member, data, path, File::from(file), attributes);
            }
            EntryType::Link => return self.hard_link(member, path, name, parent),
            EntryType::Symlink => symlinkat(link_target(member, path)?, parent, name).map_err(failed)?,
            kind @ (EntryType::Char | EntryType::Block) => {
                let device = device(member, path)?;
                let kind = if kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                match mknodat(parent, name, kind, Mode::RUSR, device) {
                    // In a user namespace nobody may make it, nor use one that is there.
                    Err(Errno::PERM) => return Ok(()),
                    made => made.map_err(failed)?,
                }
            }
            EntryType::Fifo => mknodat(parent, name, FileType::Fifo, Mode::RUSR, 0).map_err(failed)?,
            other => return Err(Error::Malformed(format!("layer: {}: unknown entry type {other:?}", shown(path)))),
        }
        attributes.set_on_node(parent, name, member.kind != EntryType::Symlink).map_err(failed)
    }

    fn fill(
        &mut self,
        member: &Member,
        data: &mut impl Read,
        path: &Path,
        mut file: File,
        attributes: &Attributes,
    ) -> Result<()> {
        match &member.sparse {
            None => copy(data, &mut file, member.size, path)?,
            Some(sparse) => {
                self.left = self
                    .left
                    .checked_sub(sparse.size)
                    .ok_or_else(|| Error::Malformed(format!("layer: {}: more bytes than allowed", shown(path))))?;
                for (offset, length) in &sparse.pieces {
                    io::Seek::seek(&mut file, io::SeekFrom::Start(*offset)).map_err(|e| io_error(path, e))?;
                    copy(data, &mut file, *length, path)?;
                }
                file.set_len(sparse.size).map_err(|e| io_error(path, e))?;
            }
        }
        attributes.set_on_open(file.as_fd(), true).map_err(|e| refused(path, e))
    }

    fn hard_link(&self, member: &Member, path: &Path, name: &OsStr, parent: BorrowedFd<'_>) -> Result<()> {
        let target = clean(link_target(member, path)?.as_bytes())?;
        let dir = self.open_dir(target.parent().unwrap_or(Path::new(""))).map_err(|e| refused(&target, e))?;
        let target_name =
            target.file_name().ok_or_else(|| Error::Malformed(format!("layer: {}: bad link", shown(path))))?;
        linkat(dir, target_name, parent, name, AtFlags::empty()).map_err(|e| refused(path, e))
    }

    /// Makes a directory or, where it is already there, gives it the entry's attributes.
    fn directory(&mut self, path: &Path, attributes: Attributes) -> Result<()> {
        if let Some(name) = path.file_name() {
            let parent = self.parent(path)?;
            match mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(refused(path, e)),
            }
        }
        let dir = self.open_dir(path).map_err(|e| refused(path, e))?;
        attributes.set_on_open(dir.as_fd(), false).map_err(|e| refused(path, e))?;
        if self.times.insert(path.to_owned(), attributes.times).is_none() {
            self.names_bytes += path.as_os_str().len();
        }
        match self.names_bytes {
            0..=MAX_DIRECTORY_NAMES_BYTES => Ok(()),
            _ => Err(Error::Malformed("layer: more directories than allowed".to_owned())),
        }
    }

    /// `.wh.NAME` hides NAME of the layers below; `.wh..wh..opq` hides everything in its directory.
    fn whiteout(&mut self, path: &Path, hidden: &[u8], parent: BorrowedFd<'_>) -> Result<()> {
        if hidden == b".wh..opq" {
            return set_opaque(parent).map_err(|e| refused(path, e));
        }
        // The other names that begin so are bookkeeping of aufs.
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(Error::Malformed(format!("layer: bad whiteout {}", shown(path))));
        }
        let name = OsStr::from_bytes(hidden);
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            // An entry of this very layer is not hidden (OCI image-spec, layer.md).
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(refused(path, e)),
        }
    }

    /// A whiteout that came before an entry of the same name gives way to it.
    fn unhide(&self, path: &Path, name: &OsStr, parent: BorrowedFd<'_>, kind: EntryType) -> Result<()> {
        let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        let is_whiteout = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0;
        if !is_whiteout {
            return Ok(());
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(|e| refused(path, e))?;
        if kind != EntryType::Directory {
            return Ok(());
        }
        mkdirat(parent, name, Mode::RWXU).map_err(|e| refused(path, e))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(parent, name, flags, Mode::empty()).map_err(|e| refused(path, e))?;
        set_opaque(dir.as_fd()).map_err(|e| refused(path, e))
    }

    /// The directory a path is in, made where the layer has no entry for it.
    fn parent(&self, path: &Path) -> Result<OwnedFd> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.open_dir(parent) {
            Ok(dir) => return Ok(dir),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(refused(path, e)),
        }
        // Step by step, so that a deep path costs no more than it is long.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (mut at, mut done) = (self.open_dir(Path::new("")).map_err(|e| refused(path, e))?, PathBuf::new());
        let mut below: Vec<&PathBuf> = self.parents.iter().collect();
        for component in parent.components() {
            done.push(component);
            let made = match mkdirat(&at, component.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(e) => return Err(refused(path, e)),
            };
            at = openat(&at, component.as_os_str(), flags, Mode::empty()).map_err(|e| refused(path, e))?;
            if made {
                inherit_from(&mut below, &done, at.as_fd()).map_err(|e| refused(path, e))?;
            }
        }
        Ok(at)
    }

    fn open_dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        open_beneath(self.root.as_fd(), path)
    }

    fn finish(self) -> Result<()> {
        for (path, times) in self.times.iter().rev() {
            let dir = self.open_dir(path).map_err(|e| refused(path, e))?;
            rustix::fs::futimens(dir, times).map_err(|e| refused(path, e))?;
        }
        rustix::fs::syncfs(&self.root).map_err(|e| refused(Path::new(""), e))
    }
}

fn copy(data: &mut impl Read, file: &mut File, size: u64, path: &Path) -> Result<()> {
    // What the disk says has a number; what a decompressor says has none.
    let copied = io::copy(&mut data.take(size), file).map_err(|e| match e.raw_os_error() {
        Some(_) => io_error(path, e),
        None => malformed(e),
    })?;
    match copied == size {
        true => Ok(()),
        false => Err(Error::Malformed(format!("layer: {}: ends after {copied} of {size} bytes", shown(path)))),
    }
}

/// A directory below another one, with no symbolic link on the way.
fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Takes owner and mode of a directory from the topmost layer that has it. Those that cannot have what is below it leave
/// the list.
fn inherit_from(layers: &mut Vec<&PathBuf>, path: &Path, dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    while let Some(layer) = layers.first() {
        match inherit(layer, path, dir) {
            Err(Errno::NOENT) => drop(layers.remove(0)),
            // Something else is there, which hides what lies below.
            Err(Errno::NOTDIR | Errno::LOOP) => layers.clear(),
            other => return other,
        }
    }
    Ok(())
}

/// Copies owner and mode of a directory of the layer `parent` onto one that a layer only passes through.
fn inherit(parent: &Path, path: &Path, dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let parent = rustix::fs::open(parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(open_beneath(parent.as_fd(), path)?)?;
    rustix::fs::fchown(dir, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(dir, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

/// A relative path without `.`, `..`, NUL and empty components.
pub(crate) fn clean(bytes: &[u8]) -> Result<PathBuf> {
    let shown = || String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).into_owned();
    if bytes.len() > MAX_PATH_BYTES || bytes.contains(&0) {
        return Err(Error::Malformed(format!("layer: bad path {:?}", shown())));
    }
    let mut path = PathBuf::new();
    for component in bytes.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(Error::Malformed(format!("layer: path {:?} leaves the root", shown()))),
            name if name.len() > 255 => return Err(Error::Malformed(format!("layer: bad path {:?}", shown()))),
            name => path.push(OsStr::from_bytes(name)),
        }
    }
    Ok(path)
}

fn link_target(member: &Member, path: &Path) -> Result<CString> {
    let target = &member.link;
    let bad = || Error::Malformed(format!("layer: {}: bad link target", shown(path)));
    if target.is_empty() || target.len() > MAX_PATH_BYTES {
        return Err(bad());
    }
    CString::new(target.as_slice()).map_err(|_| bad())
}

/// The device number. 0:0 would be a whiteout in disguise, and so would be what the kernel cuts down to that.
fn device(member: &Member, path: &Path) -> Result<u64> {
    let (major, minor) = member.device().map_err(malformed)?;
    if major > 0xfff || minor > 0xf_ffff {
        return Err(Error::Malformed(format!("layer: {}: device {major}:{minor} is out of range", shown(path))));
    }
    if (major, minor) == (0, 0) {
        return Err(Error::Malformed(format!("layer: {}: device 0:0", shown(path))));
    }
    Ok(rustix::fs::makedev(major, minor))
}

/// A path on one line, whatever is in it.
fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

fn set_opaque(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let [of_root, of_users] = OPAQUE.map(|name| move || rustix::fs::fsetxattr(dir, name, b"y", XattrFlags::empty()));
    match of_root() {
        Err(Errno::PERM) => of_users(),
        set => set,
    }
}

fn malformed(error: io::Error) -> Error {
    Error::Malformed(format!("layer: {error}"))
}

/// What the kernel refused: a hostile path is the layer's fault, the rest is the disk's.
fn refused(path: &Path, error: Errno) -> Error {
    match error {
        Errno::EXIST => Error::Malformed(format!("layer: {} occurs twice", shown(path))),
        Errno::LOOP
        | Errno::NOTDIR
        | Errno::XDEV
        | Errno::NOENT
        | Errno::PERM
        | Errno::INVAL
        | Errno::ISDIR
        | Errno::MLINK
        | Errno::RANGE
        | Errno::NAMETOOLONG => Error::Malformed(format!("layer: {}: {error}", shown(path))),
        _ => Error::Io(shown(path), error.into()),
    }
}
