//! What stands where a layer is unpacked: its own entries and those of the layers below, merged as overlayfs merges them.
//! Nothing is mounted, and the kernel follows no symbolic link.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2};
use rustix::io::Errno;

use super::{OPAQUE, refused};
use crate::{Error, Result};

/// Symbolic links on the way to one entry (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Look-ups for one layer. Honest ones need a few for each directory; a hostile one can ask for as many as it has entries,
/// links on the way to each, and layers below.
const MAX_LOOKS: u64 = 50_000_000;

/// The layer that is being unpacked, and those below it, topmost first.
pub(super) struct Stack<'a> {
    own: BorrowedFd<'a>,
    parents: &'a [PathBuf],
    looks: u64,
}

/// The layers that make up a directory, as numbers of a [`Stack`]: 0 is the one that is being unpacked.
pub(super) type View = Vec<usize>;

/// What stands at a path.
pub(super) enum Seen {
    Nothing,
    Directory {
        view: View,
        stat: Stat,
    },
    Link {
        own: bool,
        target: OsString,
        stat: Stat,
    },
    /// Anything else, and the layer that it is of.
    Other {
        layer: usize,
        stat: Stat,
    },
}

/// One directory on a true path, and what it is like, where it is there.
pub(super) struct Step {
    pub(super) name: OsString,
    pub(super) stat: Option<Stat>,
    view: View,
}

impl<'a> Stack<'a> {
    pub(super) fn new(own: BorrowedFd<'a>, parents: &'a [PathBuf]) -> Self {
        Self { own, parents, looks: 0 }
    }

    /// The layers below.
    pub(super) fn parents(&self) -> &'a [PathBuf] {
        self.parents
    }

    /// The true path of a directory: symbolic links of layers below lead on, within the root, and those of this layer are
    /// refused. What is not there is a name like any other. Errors speak of `entry`.
    pub(super) fn resolve(&mut self, wanted: &Path, entry: &Path) -> Result<Vec<Step>> {
        let mut rest: Vec<OsString> = wanted.iter().rev().map(OsStr::to_owned).collect();
        let (mut steps, mut done, mut links) = (Vec::<Step>::new(), PathBuf::new(), 0);
        while let Some(name) = rest.pop() {
            if name == ".." {
                done.pop();
                steps.pop();
                continue;
            }
            done.push(&name);
            let seen = self.look(steps.last().map(|step| &step.view), &done)?;
            match seen {
                Seen::Nothing => steps.push(Step { name, stat: None, view: View::new() }),
                Seen::Directory { view, stat } => steps.push(Step { name, stat: Some(stat), view }),
                Seen::Link { own: false, target, .. } if links < MAX_LINKS => {
                    links += 1;
                    done.pop();
                    if target.as_bytes().starts_with(b"/") {
                        done.clear();
                        steps.clear();
                    }
                    let parts = target.as_bytes().split(|b| *b == b'/').rev().map(OsStr::from_bytes);
                    rest.extend(parts.filter(|part| !part.is_empty() && *part != ".").map(OsStr::to_owned));
                }
                Seen::Link { .. } => return Err(refused(entry, Errno::LOOP)),
                Seen::Other { .. } => return Err(refused(entry, Errno::NOTDIR)),
            }
        }
        Ok(steps)
    }

    /// What stands at the end of a true path: that of a directory, and a name in it.
    pub(super) fn find(&mut self, dir: &Path, name: &OsStr) -> Result<Seen> {
        let steps = self.resolve(dir, dir)?;
        self.look(steps.last().map(|step| &step.view), &dir.join(name))
    }

    /// Opens what stands at a path of one layer.
    pub(super) fn open(&mut self, layer: usize, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let below = match layer.checked_sub(1).and_then(|at| self.parents.get(at)) {
            Some(parent) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Some(rustix::fs::open(parent, flags, Mode::empty())?)
            }
            None => None,
        };
        open_beneath(below.as_ref().map_or(self.own, AsFd::as_fd), path, flags | OFlags::NOFOLLOW)
    }

    /// What stands at `path`, in a directory that the layers of `view` make up: all of them where it is the root.
    fn look(&mut self, view: Option<&View>, path: &Path) -> Result<Seen> {
        let mut found: Option<(View, Stat)> = None;
        for at in 0..view.map_or(self.parents.len() + 1, Vec::len) {
            let layer = view.map_or(at, |view| view.get(at).copied().unwrap_or_default());
            self.looks += 1;
            if self.looks > MAX_LOOKS {
                return Err(Error::Malformed("layer: more links of layers below than allowed".to_owned()));
            }
            let failed = |e: Errno| refused(path, e);
            let here = match self.open(layer, path, OFlags::PATH) {
                Err(Errno::NOENT) => continue,
                opened => opened.map_err(failed)?,
            };
            let stat = rustix::fs::fstat(&here).map_err(failed)?;
            match (FileType::from_raw_mode(stat.st_mode), &mut found) {
                (FileType::Directory, _) => {
                    found.get_or_insert_with(|| (View::new(), stat)).0.push(layer);
                    if is_opaque(here.as_fd()) {
                        break;
                    }
                }
                // It ends what is seen of directories above it.
                (_, Some(_)) => break,
                (FileType::Symlink, None) => {
                    let target = rustix::fs::readlinkat(&here, "", Vec::new()).map_err(failed)?;
                    let target = OsStr::from_bytes(target.as_bytes()).to_owned();
                    return Ok(Seen::Link { own: layer == 0, target, stat });
                }
                (_, None) if is_whiteout(&stat) => return Ok(Seen::Nothing),
                (_, None) => return Ok(Seen::Other { layer, stat }),
            }
        }
        Ok(found.map_or(Seen::Nothing, |(view, stat)| Seen::Directory { view, stat }))
    }
}

/// What stands below a directory, with no symbolic link on the way.
pub(super) fn open_beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Whether this hides what the layers below have under its name.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether a directory hides what the layers below have in it.
fn is_opaque(dir: BorrowedFd<'_>) -> bool {
    let Ok(dir) = openat(dir, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else { return false };
    let mut value = [0u8; 2];
    OPAQUE.iter().any(|name| rustix::fs::fgetxattr(&dir, *name, &mut value) == Ok(1) && value[0] == b'y')
}
