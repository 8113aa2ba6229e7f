//! The layer applier: a tar stream becomes a directory in overlayfs form. Everything happens relative to one directory
//! descriptor, no symbolic link is followed on the way to a parent, and nothing but files of the layer is touched.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, fchmod, linkat, mkdirat,
    mknodat, openat, openat2, symlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::blob::{Hashing, io_error};
use crate::{Error, Result};

/// No honest layer has more entries.
const MAX_ENTRIES: usize = 2_000_000;
/// Longest path and link target, in bytes (PATH_MAX).
const MAX_PATH_BYTES: usize = 4096;
/// Longest extended attribute value (XATTR_SIZE_MAX).
const MAX_XATTR_BYTES: usize = 65_536;
const OPAQUE: &str = "trusted.overlay.opaque";

/// Unpacks a compressed layer into `staged`, which must not exist. `parents` are the layers below, topmost first: a
/// directory that the layer only passes through takes its owner and mode from them. `diff` is the DiffID to be met.
/// Returns the bytes of file contents.
pub(crate) fn unpack(blob: File, staged: &Path, parents: &[PathBuf], diff: &str, max_bytes: u64) -> Result<u64> {
    DirBuilder::new().mode(0o755).create(staged).map_err(|e| io_error(staged, e))?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(staged, flags, Mode::empty()).map_err(|e| io_error(staged, e.into()))?;
    if let Some(parent) = parents.first() {
        inherit(parent, Path::new(""), root.as_fd()).map_err(|e| io_error(parent, e))?;
    }
    let mut stream = Hashing::new(decompress(blob)?);
    let mut applier = Applier { root, parents, seen: HashSet::new(), times: BTreeMap::new(), left: max_bytes };
    applier.apply(&mut stream)?;
    let used = max_bytes - applier.left;
    applier.finish()?;
    drain(&mut stream, max_bytes)?;
    let (_, got, _) = stream.finish();
    if got != diff {
        return Err(Error::Digest { digest: diff.to_owned(), got });
    }
    Ok(used)
}

/// Plain, gzip or zstd, by their first bytes: media types are often wrong.
pub(crate) fn decompress(blob: File) -> Result<Box<dyn Read>> {
    let mut reader = BufReader::with_capacity(1 << 17, blob);
    let magic = io::BufRead::fill_buf(&mut reader).map_err(|e| Error::Io("layer".to_owned(), e))?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::Decoder::with_buffer(reader).map_err(|e| Error::Malformed(format!("layer: {e}")))?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(reader))
}

/// Reads what follows the archive's end (padding), so that the digest covers all of it.
fn drain(stream: &mut impl Read, max_bytes: u64) -> Result<()> {
    let read = io::copy(&mut stream.take(max_bytes), &mut io::sink());
    read.map(|_| ()).map_err(|e| Error::Malformed(format!("layer: {e}")))
}

struct Applier<'a> {
    root: OwnedFd,
    parents: &'a [PathBuf],
    /// Every path that is not a directory, and every whiteout.
    seen: HashSet<PathBuf>,
    /// Times of directories, set last.
    times: BTreeMap<PathBuf, Timestamps>,
    left: u64,
}

/// The metadata that all kinds of entries share.
struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Applier<'_> {
    fn apply(&mut self, stream: &mut impl Read) -> Result<()> {
        let mut archive = Archive::new(stream);
        let entries = archive.entries().map_err(malformed)?;
        for (count, entry) in entries.enumerate() {
            if count >= MAX_ENTRIES {
                return Err(Error::Malformed(format!("layer: more than {MAX_ENTRIES} entries")));
            }
            self.entry(entry.map_err(malformed)?)?;
        }
        Ok(())
    }

    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = clean(&entry.path_bytes())?;
        let attributes = Attributes::of(&mut entry, &path)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.directory(&path, attributes);
        };
        let parent = self.parent(&path)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(&path, hidden, parent.as_fd());
        }
        self.unhide(&path, &name, parent.as_fd(), kind)?;
        if kind == EntryType::Directory {
            return self.directory(&path, attributes);
        }
        if !self.seen.insert(path.clone()) {
            return Err(Error::Malformed(format!("layer: {} occurs twice", path.display())));
        }
        self.create(&mut entry, &path, &name, parent.as_fd(), &attributes)
    }

    fn create(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        name: &OsStr,
        parent: BorrowedFd<'_>,
        attributes: &Attributes,
    ) -> Result<()> {
        let failed = |e: Errno| refused(path, e);
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.file(entry, path, name, parent, attributes);
            }
            EntryType::Link => return self.hard_link(entry, path, name, parent),
            EntryType::Symlink => symlinkat(link_target(entry, path)?, parent, name).map_err(failed)?,
            kind @ (EntryType::Char | EntryType::Block) => {
                let device = device(entry, path)?;
                let kind = if kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                mknodat(parent, name, kind, Mode::RUSR, device).map_err(failed)?;
            }
            EntryType::Fifo => mknodat(parent, name, FileType::Fifo, Mode::RUSR, 0).map_err(failed)?,
            other => return Err(Error::Malformed(format!("layer: {}: unknown entry type {other:?}", path.display()))),
        }
        attributes.set_on_node(parent, name, entry.header().entry_type() != EntryType::Symlink).map_err(failed)
    }

    fn file(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        name: &OsStr,
        parent: BorrowedFd<'_>,
        attributes: &Attributes,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| refused(path, e))?;
        let size = entry.size();
        if size > self.left {
            return Err(Error::Malformed("layer: more bytes than allowed".to_owned()));
        }
        self.left -= size;
        let mut file = File::from(file);
        let copied = io::copy(&mut entry.take(size), &mut file).map_err(|e| Error::Malformed(format!("layer: {e}")))?;
        if copied != size {
            return Err(Error::Malformed(format!("layer: {}: ends after {copied} of {size} bytes", path.display())));
        }
        attributes.set_on_open(file.as_fd(), true).map_err(|e| refused(path, e))
    }

    fn hard_link(&self, entry: &Entry<'_, impl Read>, path: &Path, name: &OsStr, parent: BorrowedFd<'_>) -> Result<()> {
        let target = clean(link_target(entry, path)?.as_bytes())?;
        let dir = self.open_dir(target.parent().unwrap_or(Path::new(""))).map_err(|e| refused(&target, e))?;
        let target_name =
            target.file_name().ok_or_else(|| Error::Malformed(format!("layer: {}: bad link", path.display())))?;
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
        self.times.insert(path.to_owned(), attributes.times);
        Ok(())
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
            return Err(Error::Malformed(format!("layer: bad whiteout {}", path.display())));
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
        let mut done = PathBuf::new();
        for component in parent.components() {
            let above = self.open_dir(&done).map_err(|e| refused(path, e))?;
            done.push(component);
            match mkdirat(&above, component.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) => self.inherit(&done)?,
                Err(Errno::EXIST) => {}
                Err(e) => return Err(refused(path, e)),
            }
        }
        self.open_dir(parent).map_err(|e| refused(path, e))
    }

    fn inherit(&self, path: &Path) -> Result<()> {
        let dir = self.open_dir(path).map_err(|e| refused(path, e))?;
        for parent in self.parents {
            let Ok(metadata) = fs::symlink_metadata(parent.join(path)) else { continue };
            if metadata.is_dir() {
                return inherit(parent, path, dir.as_fd()).map_err(|e| io_error(path, e));
            }
            break;
        }
        Ok(())
    }

    fn open_dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    fn finish(self) -> Result<()> {
        for (path, times) in self.times.iter().rev() {
            let dir = self.open_dir(path).map_err(|e| refused(path, e))?;
            rustix::fs::futimens(dir, times).map_err(|e| refused(path, e))?;
        }
        rustix::fs::syncfs(&self.root).map_err(|e| refused(Path::new(""), e))
    }
}

impl Attributes {
    fn of(entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<Self> {
        let header = entry.header();
        let number = |value: io::Result<u64>| value.map_err(malformed);
        let id = |value: io::Result<u64>| {
            u32::try_from(number(value)?)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| Error::Malformed(format!("layer: {}: owner out of range", path.display())))
        };
        let (mut uid, mut gid) = (id(header.uid())?, id(header.gid())?);
        let mode = Mode::from_raw_mode(header.mode().map_err(malformed)? & 0o7777);
        let mut seconds = i64::try_from(number(header.mtime())?).unwrap_or(0);
        let mut xattrs = Vec::new();
        if let Some(extensions) = entry.pax_extensions().map_err(malformed)? {
            for extension in extensions {
                let extension = extension.map_err(malformed)?;
                let key = extension.key().unwrap_or_default();
                let text = extension.value().unwrap_or_default();
                match key {
                    "uid" => uid = text.parse().map_err(|_| owner(path))?,
                    "gid" => gid = text.parse().map_err(|_| owner(path))?,
                    "mtime" => seconds = text.split('.').next().and_then(|s| s.parse().ok()).unwrap_or(seconds),
                    _ => xattrs.extend(xattr(key, extension.value_bytes(), path)?),
                }
            }
        }
        if uid == u32::MAX || gid == u32::MAX {
            return Err(owner(path));
        }
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), mode, times, xattrs })
    }

    fn set_on_open(&self, file: BorrowedFd<'_>, times: bool) -> rustix::io::Result<()> {
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

    fn set_on_node(&self, parent: BorrowedFd<'_>, name: &OsStr, mode: bool) -> rustix::io::Result<()> {
        rustix::fs::chownat(parent, name, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if mode {
            // The node was made just now by us in a directory only root can enter: it is no link.
            rustix::fs::chmodat(parent, name, self.mode, AtFlags::empty())?;
        }
        utimensat(parent, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Copies owner and mode of a directory below onto one that a layer only passes through.
fn inherit(parent: &Path, path: &Path, dir: BorrowedFd<'_>) -> io::Result<()> {
    let metadata = fs::symlink_metadata(parent.join(path))?;
    rustix::fs::fchown(dir, Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid())))?;
    Ok(fchmod(dir, Mode::from_raw_mode(metadata.mode() & 0o7777))?)
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

fn link_target(entry: &Entry<'_, impl Read>, path: &Path) -> Result<CString> {
    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
    let bad = || Error::Malformed(format!("layer: {}: bad link target", path.display()));
    if target.is_empty() || target.len() > MAX_PATH_BYTES {
        return Err(bad());
    }
    CString::new(target).map_err(|_| bad())
}

/// The device number; 0:0 would be a whiteout in disguise.
fn device(entry: &Entry<'_, impl Read>, path: &Path) -> Result<u64> {
    let major = entry.header().device_major().map_err(malformed)?.unwrap_or(0);
    let minor = entry.header().device_minor().map_err(malformed)?.unwrap_or(0);
    if (major, minor) == (0, 0) {
        return Err(Error::Malformed(format!("layer: {}: device 0:0", path.display())));
    }
    Ok(rustix::fs::makedev(major, minor))
}

/// An extended attribute of the entry. Those that steer overlayfs may not come from outside; of the trusted ones none.
fn xattr(key: &str, value: &[u8], path: &Path) -> Result<Option<(String, Vec<u8>)>> {
    let Some(name) = key.strip_prefix("SCHILY.xattr.") else { return Ok(None) };
    if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
        return Err(Error::Malformed(format!("layer: {}: attribute {name} is reserved", path.display())));
    }
    let wanted = name.starts_with("user.") || name == "security.capability";
    if !wanted {
        return Ok(None);
    }
    if name.len() > 255 || value.len() > MAX_XATTR_BYTES {
        return Err(Error::Malformed(format!("layer: {}: attribute too large", path.display())));
    }
    Ok(Some((name.to_owned(), value.to_owned())))
}

fn set_opaque(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
}

fn owner(path: &Path) -> Error {
    Error::Malformed(format!("layer: {}: owner out of range", path.display()))
}

fn malformed(error: io::Error) -> Error {
    Error::Malformed(format!("layer: {error}"))
}

/// What the kernel refused: a hostile path is the layer's fault, the rest is the disk's.
fn refused(path: &Path, error: Errno) -> Error {
    match error {
        Errno::LOOP
        | Errno::NOTDIR
        | Errno::XDEV
        | Errno::EXIST
        | Errno::NOENT
        | Errno::PERM
        | Errno::INVAL
        | Errno::ISDIR => Error::Malformed(format!("layer: {}: {error}", path.display())),
        _ => Error::Io(path.display().to_string(), error.into()),
    }
}
