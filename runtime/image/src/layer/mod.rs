//! The layer applier: a tar stream becomes a directory in overlayfs form. Everything happens relative to one directory
//! descriptor, the kernel follows no symbolic link on the way to a parent, and nothing but files of the layer is touched.
//!
//! A parent that is a symbolic link in a layer below is where that leads to within the root, as it is for containerd and
//! umoci, which unpack onto the layers below. One that is a symbolic link in this very layer is refused.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps, XattrFlags, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use tar::EntryType;

use crate::archive::{Member, Members};
use crate::blob::{Hashing, io_error};
use crate::{Error, Result};

mod attributes;
mod below;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod mutations;
mod place;
mod stream;

use attributes::Attributes;
use below::Stack;
use place::Place;
pub(crate) use stream::{Bounded, decompress};

/// No honest layer has more entries.
const MAX_ENTRIES: usize = 2_000_000;
/// Bytes of the paths of all directories of a layer, which are held in memory.
const MAX_DIRECTORY_NAMES_BYTES: usize = 256 << 20;
/// Longest path and link target, in bytes (PATH_MAX).
const MAX_PATH_BYTES: usize = 4096;
/// What makes a directory hide what is below, and its name on overlays that are mounted in a user namespace (`userxattr`).
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Unpacks a compressed layer into `staged`, which must not exist. `parents` are the layers below, topmost first: what
/// names on the way to an entry mean comes from them, and the owner and mode of directories only passed through. `diff` is the DiffID to be met, and
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
        let inherit = rustix::fs::stat(parent).and_then(|stat| attributes::inherit(root.as_fd(), Some(&stat)));
        inherit.map_err(|e| io_error(parent, e.into()))?;
    }
    let mut stream = Hashing::new(Bounded { inner: decompress(blob)?, left: max_bytes });
    let mut applier = Applier {
        root: root.as_fd(),
        stack: Stack::new(root.as_fd(), parents),
        last: None,
        times: BTreeMap::new(),
        names_bytes: 0,
        left: max_bytes,
    };
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
    root: BorrowedFd<'a>,
    stack: Stack<'a>,
    /// Of the last file: the path of its directory, and where links of the layers below led to from there.
    last: Option<(PathBuf, PathBuf)>,
    /// Times of directories, set last.
    times: BTreeMap<PathBuf, Timestamps>,
    names_bytes: usize,
    /// Bytes that may still come from elsewhere: holes of sparse files, files brought up from layers below.
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
            None if member.kind == EntryType::Directory => return self.directory(&path, &path, &attributes),
            None => return Err(Error::Malformed("layer: the root is no directory".to_owned())),
        };
        let place = self.parent(&path)?;
        if member.kind != EntryType::Regular {
            // It may be what the next path leads through.
            self.last = None;
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(&path, hidden, &place);
        }
        self.unhide(&path, &name, place.dir.as_fd(), member.kind)?;
        match member.kind {
            EntryType::Directory => {
                match mkdirat(&place.dir, &name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(refused(&path, e)),
                }
                self.directory(&place.path.join(&name), &path, &attributes)
            }
            EntryType::Link => self.hard_link(member, &path, &name, &place),
            _ => self.create(member, data, &path, &name, place.dir.as_fd(), &attributes),
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
                self.take(sparse.size, path)?;
                for (offset, length) in &sparse.pieces {
                    io::Seek::seek(&mut file, io::SeekFrom::Start(*offset)).map_err(|e| io_error(path, e))?;
                    copy(data, &mut file, *length, path)?;
                }
                file.set_len(sparse.size).map_err(|e| io_error(path, e))?;
            }
        }
        attributes.set_on_open(file.as_fd(), true).map_err(|e| refused(path, e))
    }

    /// Counts bytes that do not come from the archive.
    fn take(&mut self, bytes: u64, path: &Path) -> Result<()> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| Error::Malformed(format!("layer: {}: more bytes than allowed", shown(path))))?;
        Ok(())
    }

    /// Gives a directory that is there the attributes of its entry.
    fn directory(&mut self, real: &Path, path: &Path, attributes: &Attributes) -> Result<()> {
        let dir = self.open_dir(real).map_err(|e| refused(path, e))?;
        attributes.set_on_open(dir.as_fd(), false).map_err(|e| refused(path, e))?;
        if self.times.insert(real.to_owned(), attributes.times.clone()).is_none() {
            self.names_bytes += real.as_os_str().len();
        }
        match self.names_bytes {
            0..=MAX_DIRECTORY_NAMES_BYTES => Ok(()),
            _ => Err(Error::Malformed("layer: more directories than allowed".to_owned())),
        }
    }

    /// `.wh.NAME` hides NAME of the layers below; `.wh..wh..opq` hides everything in its directory.
    fn whiteout(&mut self, path: &Path, hidden: &[u8], place: &Place) -> Result<()> {
        if hidden == b".wh..opq" {
            let hide = if place.path.as_os_str().is_empty() { self.hide_root() } else { set_opaque(place.dir.as_fd()) };
            return hide.map_err(|e| refused(path, e));
        }
        // The other names that begin so are bookkeeping of aufs.
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(Error::Malformed(format!("layer: bad whiteout {}", shown(path))));
        }
        hide(place.dir.as_fd(), OsStr::from_bytes(hidden)).map_err(|e| refused(path, e))
    }

    /// Hides everything in the roots of the layers below, one by one: overlayfs heeds no mark on a layer's own root.
    fn hide_root(&self) -> rustix::io::Result<()> {
        for parent in self.stack.parents() {
            let below = rustix::fs::open(parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            for entry in rustix::fs::Dir::read_from(&below)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name != "." && name != ".." {
                    hide(self.root, name)?;
                }
            }
        }
        Ok(())
    }

    /// A whiteout that came before an entry of the same name gives way to it. Whether there was one.
    fn unhide(&self, path: &Path, name: &OsStr, parent: BorrowedFd<'_>, kind: EntryType) -> Result<bool> {
        let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(false) };
        if !below::is_whiteout(&stat) {
            return Ok(false);
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(|e| refused(path, e))?;
        if kind != EntryType::Directory {
            return Ok(true);
        }
        mkdirat(parent, name, Mode::RWXU).map_err(|e| refused(path, e))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(parent, name, flags, Mode::empty()).map_err(|e| refused(path, e))?;
        set_opaque(dir.as_fd()).map_err(|e| refused(path, e))?;
        Ok(true)
    }

    fn finish(self) -> Result<()> {
        for (path, times) in self.times.iter().rev() {
            let dir = self.open_dir(path).map_err(|e| refused(path, e))?;
            rustix::fs::futimens(dir, times).map_err(|e| refused(path, e))?;
        }
        rustix::fs::syncfs(self.root).map_err(|e| refused(Path::new(""), e))
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

/// Hides what the layers below have under a name. What this very layer has there is not hidden (OCI image-spec, layer.md),
/// but a directory is merged with nothing.
fn hide(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::EXIST) => {}
        made => return made,
    }
    match openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(dir) => set_opaque(dir.as_fd()),
        Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(e) => Err(e),
    }
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
