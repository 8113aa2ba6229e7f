//! Files that hold secrets, and noticing that a file changed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// Writes a file so that it is there whole or not at all, also after a crash: a neighbour with mode 0600, fsync, rename.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes).map_err(|source| Error::File { path: path.into(), source })
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The id keeps two processes that write the same file from writing into each other's neighbour.
    let beside = folder.join(format!(".{name}.{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })
}

/// What a file looked like: another inode, time or length means other content. `None`: it is not there.
type Stamp = Option<(u64, i64, i64, u64)>;

/// Files to look at, and how they looked last.
#[derive(Debug, Default)]
pub(crate) struct Watched(Vec<(PathBuf, Stamp)>);

impl Watched {
    /// Remembers how the files look now.
    pub(crate) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamped = |path: PathBuf| {
            let stamp = stamp(&path);
            (path, stamp)
        };
        Self(paths.into_iter().map(stamped).collect())
    }

    /// Whether one looks different now; each difference is told once.
    pub(crate) fn changed(&mut self) -> bool {
        let mut any = false;
        for (path, seen) in &mut self.0 {
            let now = stamp(path);
            any |= *seen != now;
            *seen = now;
        }
        any
    }

    /// Lets the next look find a difference.
    pub(crate) fn again(&mut self) {
        self.0.iter_mut().for_each(|(_, seen)| *seen = None);
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}
