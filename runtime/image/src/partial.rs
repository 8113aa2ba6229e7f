//! Blobs that are being fetched: `partial/<digest>.partial`, locked by who fetches, kept when that process dies, and turned
//! into a blob by one rename when the digest is met. Never in the folder of blobs, and never under a blob's name.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};
use tokio::sync::{Semaphore, oneshot};

use crate::blob::{self, Hashing, io_error};
use crate::{Error, Result};

/// Threads of this process that wait for what others fetch. None can be called off, so that one may outlive its pull.
static WAITING: Semaphore = Semaphore::const_new(64);

/// A blob of which some bytes have arrived.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    digest: String,
    out: Hashing<File>,
}

impl Partial {
    /// Takes up a blob where another process left it, or begins it. `None` where somebody else fetches it now.
    pub(crate) fn claim(dir: &Path, digest: &str, size: u64) -> Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| io_error(dir, e))?;
        let path = path_of(dir, digest)?;
        let file = lock(&path, true, FlockOperation::NonBlockingLockExclusive).map_err(|e| io_error(&path, e))?;
        file.map(|file| Self::take_up(file, path, digest, size)).transpose()
    }

    /// Waits until nobody fetches a blob any more, and takes it up if it has ended before its time. `None` where nothing is
    /// left of it: it has come, or was given up.
    pub(crate) async fn claim_next(dir: &Path, digest: &str, size: u64) -> Result<Option<Self>> {
        let permit = WAITING.acquire().await.map_err(|e| Error::Transport(e.to_string()))?;
        let (path, digest) = (path_of(dir, digest)?, digest.to_owned());
        let (sender, receiver) = oneshot::channel();
        // Not one of tokio's: its runtime would not end before them.
        let wait = move || {
            let _permit = permit;
            let file = match lock(&path, false, FlockOperation::LockExclusive) {
                _ if sender.is_closed() => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                file => file.map_err(|e| io_error(&path, e)),
            };
            let partial = file.and_then(|file| file.map(|file| Self::take_up(file, path, &digest, size)).transpose());
            let _ = sender.send(partial);
        };
        std::thread::Builder::new().name("fetched elsewhere".into()).spawn(wait).map_err(|e| io_error(dir, e))?;
        receiver.await.map_err(|e| Error::Transport(e.to_string()))?
    }

    fn take_up(file: File, path: PathBuf, digest: &str, size: u64) -> Result<Self> {
        let begin = || -> io::Result<Hashing<File>> {
            if file.metadata()?.len() > size {
                file.set_len(0)?;
            }
            let mut out = Hashing::new(file);
            out.read_again()?;
            Ok(out)
        };
        let out = begin().map_err(|e| io_error(&path, e))?;
        Ok(Self { path, digest: digest.to_owned(), out })
    }

    /// How many bytes have arrived.
    pub(crate) fn bytes(&self) -> u64 {
        self.out.seen_bytes()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| io_error(&self.path, e))
    }

    /// Forgets what has arrived.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.out.restart().map_err(|e| io_error(&self.path, e))
    }

    /// Whether the bytes are those that the digest stands for.
    pub(crate) fn verify(&self) -> Result<()> {
        let got = self.out.digest();
        if got == self.digest { Ok(()) } else { Err(Error::Digest { digest: self.digest.clone(), got }) }
    }

    /// Makes a blob of it, durable and visible. It is verified before.
    pub(crate) fn commit(self, blobs: &Path) -> Result<()> {
        self.verify()?;
        let (file, _, _) = self.out.finish();
        file.sync_all().map_err(|e| io_error(&self.path, e))?;
        let target = blob::path(blobs, &self.digest)?;
        fs::rename(&self.path, &target).map_err(|e| io_error(&target, e))
    }

    /// Takes it away: it is of no use to whoever tries again.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// How many bytes of a blob somebody else has fetched by now.
pub(crate) fn arrived(dir: &Path, digest: &str) -> u64 {
    path_of(dir, digest).and_then(|path| fs::metadata(&path).map_err(|e| io_error(&path, e))).map_or(0, |m| m.len())
}

/// Removes a blob that came in part and that nobody fetches; with `only_empty`, if nothing came.
pub(crate) fn forget(dir: &Path, digest: &str, only_empty: bool) {
    let Ok(path) = path_of(dir, digest) else { return };
    let Ok(file) = File::open(&path) else { return };
    let wanted = !only_empty || file.metadata().is_ok_and(|metadata| metadata.len() == 0);
    if wanted && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && same_file(&file, &path) {
        let _ = fs::remove_file(&path);
    }
}

/// Removes what nobody fetches and what was last written to before `keep_since`, if given. Returns the bytes freed.
pub(crate) fn clear(dir: &Path, keep_since: Option<std::time::SystemTime>) -> Result<u64> {
    let mut freed = 0;
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.map_err(|e| io_error(dir, e))?.path();
        let Ok(file) = File::open(&path) else { continue };
        let metadata = file.metadata().map_err(|e| io_error(&path, e))?;
        let fresh = keep_since.is_some_and(|since| metadata.modified().is_ok_and(|modified| modified >= since));
        if !fresh && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && same_file(&file, &path) {
            fs::remove_file(&path).map_err(|e| io_error(&path, e))?;
            freed += metadata.len();
        }
    }
    Ok(freed)
}

/// Opens the file of a blob and locks it. `None` where somebody else has the lock, or where the file has lost its name while
/// we waited.
fn lock(path: &Path, create: bool, how: FlockOperation) -> io::Result<Option<File>> {
    let file = File::options().create(create).truncate(false).read(true).write(true).mode(0o600).open(path)?;
    match retry_on_intr(|| flock(&file, how)) {
        Ok(()) => Ok(Some(file).filter(|file| same_file(file, path))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn path_of(dir: &Path, digest: &str) -> Result<PathBuf> {
    Ok(dir.join(format!("{}.partial", blob::hex(digest)?)))
}

/// Whether the name still leads to the open file: it may have become a blob, or been removed, before we had the lock.
fn same_file(file: &File, path: &Path) -> bool {
    let identity = |metadata: io::Result<fs::Metadata>| metadata.map(|m| (m.dev(), m.ino())).ok();
    let open = identity(file.metadata());
    open.is_some() && open == identity(fs::symlink_metadata(path))
}

impl Hashing<File> {
    /// Hashes what the file holds already.
    fn read_again(&mut self) -> io::Result<()> {
        let mut file = self.inner().try_clone()?;
        let mut buffer = vec![0; 1 << 17];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            self.saw(buffer.get(..n).unwrap_or_default());
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        let mut file = self.inner().try_clone()?;
        file.set_len(0)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(0))?;
        *self = Self::new(file);
        Ok(())
    }
}
