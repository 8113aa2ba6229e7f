//! What is on its way into the store: a directory, locked by its maker as long as he lives, that keeps collections from what
//! he needs.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::blob::io_error;
use crate::store::{Store, entries};
use crate::{Error, Result, tree};

/// The file of an ingest directory that names blobs.
pub(crate) const HELD: &str = "held";
/// A directory for what is on its way in, removed when dropped.
#[derive(Debug)]
pub(crate) struct Ingest {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = tree::remove(&self.path);
    }
}

impl Ingest {
    /// Keeps blobs from being collected as long as this lives, those that are here and those that come.
    pub(crate) fn hold<'a>(&self, store: &Store, digests: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let text = digests.into_iter().fold(String::new(), |text, digest| text + digest + "\n");
        let _lock = store.lock()?;
        let path = self.path.join(HELD);
        fs::write(&path, text).map_err(|e| io_error(&path, e))
    }

    /// The same for layers, where blobs are held; otherwise nothing is collected at all.
    pub(crate) fn hold_layers(&self, store: &Store, chain: &[String]) -> Result<()> {
        let _lock = store.lock()?;
        let path = self.path.join(HELD);
        let append = |mut file: File| chain.iter().try_for_each(|id| writeln!(file, "{id}"));
        match File::options().append(true).open(&path).and_then(append) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error(&path, e)),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// A fresh directory for what is on its way in.
    pub(crate) fn ingest(&self) -> Result<Ingest> {
        let _lock = self.lock()?;
        for n in 0..10_000u32 {
            let path = self.ingests().join(n.to_string());
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let lock = File::open(&path).map_err(|e| io_error(&path, e))?;
                    flock(&lock, FlockOperation::LockExclusive).map_err(|e| io_error(&path, e.into()))?;
                    return Ok(Ingest { path, _lock: lock });
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error(&path, e)),
            }
        }
        Err(Error::Malformed("too many pulls at once".to_owned()))
    }

    /// Removes what a killed process left.
    pub(crate) fn clear_ingests(&self) -> Result<()> {
        for path in entries(&self.ingests())? {
            if !is_held(&path)? {
                tree::remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Whether a live process holds the lock on an ingest directory.
pub(crate) fn is_held(path: &Path) -> Result<bool> {
    let Ok(dir) = File::open(path) else { return Ok(false) };
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(e) => Err(io_error(path, e.into())),
    }
}
