//! Where entries go: the directory each is in, made where the layer has no entry for it, and the files that hard links lead
//! to, brought up from the layers below.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, linkat, mkdirat, openat, statat, symlinkat};
use rustix::io::Errno;
use tar::EntryType;

use super::below::{Seen, Step, is_whiteout, open_beneath};
use super::{Applier, attributes, clean, link_target, refused, shown};
use crate::archive::Member;
use crate::blob::io_error;
use crate::{Error, Result};

/// A directory of the layer that is being unpacked.
pub(super) struct Place {
    pub(super) dir: OwnedFd,
    /// Its path from the root, without links.
    pub(super) path: PathBuf,
}

impl Applier<'_> {
    /// The directory that an entry is in. A name on the way that the layer does not have means what it means below.
    pub(super) fn parent(&mut self, path: &Path) -> Result<Place> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.open_dir(parent) {
            Ok(dir) => return Ok(Place { dir, path: parent.to_owned() }),
            Err(Errno::NOENT) if self.last.as_ref().is_some_and(|(asked, _)| asked == parent) => {
                let real = self.last.as_ref().map(|(_, real)| real.clone()).unwrap_or_default();
                let dir = self.open_dir(&real).map_err(|e| refused(path, e))?;
                return Ok(Place { dir, path: real });
            }
            Err(_) => {}
        }
        let steps = self.stack.resolve(parent, path)?;
        let place = self.make(&steps, path)?;
        self.last = (place.path != parent).then(|| (parent.to_owned(), place.path.clone()));
        Ok(place)
    }

    /// Opens a true path, making what this layer does not have. Step by step, so that a deep one costs no more than it is
    /// long.
    fn make(&self, steps: &[Step], entry: &Path) -> Result<Place> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |e: Errno| refused(entry, e);
        let mut place = Place { dir: self.open_dir(Path::new("")).map_err(failed)?, path: PathBuf::new() };
        for step in steps {
            let made = match mkdirat(&place.dir, &step.name, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => self.unhide(entry, &step.name, place.dir.as_fd(), EntryType::Directory)?,
                Err(e) => return Err(failed(e)),
            };
            place.dir = openat(&place.dir, &step.name, flags, Mode::empty()).map_err(failed)?;
            place.path.push(&step.name);
            if made {
                attributes::inherit(place.dir.as_fd(), step.stat.as_ref()).map_err(failed)?;
            }
        }
        Ok(place)
    }

    pub(super) fn open_dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        open_beneath(self.root, path, OFlags::DIRECTORY)
    }

    pub(super) fn hard_link(&mut self, member: &Member, path: &Path, name: &OsStr, to: &Place) -> Result<()> {
        let target = clean(link_target(member, path)?.as_bytes())?;
        let bad =
            |why: &str| Error::Malformed(format!("layer: {}: a hard link to {}{why}", shown(path), shown(&target)));
        let failed = |e: Errno| refused(path, e);
        let file = target.file_name().ok_or_else(|| bad("nothing"))?;
        let from = self.parent(&target)?;
        match statat(&from.dir, file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => return Err(bad(", which is hidden")),
            Ok(_) => {}
            Err(Errno::NOENT) => match self.stack.find(&from.path, file)? {
                Seen::Nothing => return Err(bad(", which is nowhere")),
                Seen::Directory { .. } => return Err(bad(", a directory")),
                Seen::Link { target, stat, .. } => {
                    symlinkat(&*target, &from.dir, file).map_err(failed)?;
                    attributes::copy_to_node(from.dir.as_fd(), file, &stat).map_err(failed)?;
                }
                Seen::Other { layer, stat } => self.bring_up(&from, file, layer, &stat)?,
            },
            Err(e) => return Err(failed(e)),
        }
        linkat(&from.dir, file, &to.dir, name, AtFlags::empty()).map_err(failed)
    }

    /// Copies a file of a layer below into this one, as overlayfs does before it gives a file another name.
    fn bring_up(&mut self, to: &Place, name: &OsStr, layer: usize, stat: &Stat) -> Result<()> {
        let path = to.path.join(name);
        let failed = |e: Errno| refused(&path, e);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Malformed(format!("layer: a hard link to {}, which is no file", shown(&path))));
        }
        self.take(u64::try_from(stat.st_size).unwrap_or(u64::MAX), &path)?;
        let source = self.stack.open(layer, &path, OFlags::RDONLY).map_err(failed)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = openat(&to.dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let (mut source, mut copy) = (File::from(source), File::from(copy));
        io::copy(&mut source, &mut copy).map_err(|e| io_error(&path, e))?;
        attributes::copy(source.as_fd(), copy.as_fd(), stat).map_err(failed)
    }
}
