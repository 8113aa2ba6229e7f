//! All input and output of the embedded store: a flat directory of files whose losses can be reasoned about.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// A directory of files. What a power cut takes: bytes written after the last `sync` of their file, and names changed
/// after the last `sync_names`. Clones are handles on the same directory.
pub trait Disk: Clone + Send + 'static {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A file's content.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Makes a file, or lengthens it, to `len` bytes for which space is reserved; new bytes are zero.
    fn allocate(&self, name: &str, len: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`; the file is made if it is not there.
    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name, in place of what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// A directory of the file system, held by this process alone.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    open: Mutex<HashMap<String, Arc<File>>>,
    /// Locked as long as the directory is in use.
    _lock: File,
}

/// The file whose lock says that the directory is in use.
const LOCK: &str = "lock";

impl Directory {
    /// Opens a directory, making it if it is not there. `WouldBlock` means that another process has it open.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), open: Mutex::default(), _lock: lock }) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.inner.path.join(name)
    }

    fn file(&self, name: &str) -> io::Result<Arc<File>> {
        let mut open = self.inner.open.lock();
        if let Some(file) = open.get(name) {
            return Ok(file.clone());
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = Arc::new(options.open(self.path(name))?);
        open.insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn forget(&self, name: &str) {
        self.inner.open.lock().remove(name);
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.inner.path)? {
            names.extend(entry?.file_name().into_string().ok().filter(|n| n != LOCK));
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path(name))
    }

    fn allocate(&self, name: &str, len: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        let file = self.file(name)?;
        match rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, len) {
            // Some file systems cannot reserve; there a full disk shows only when it is written.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(len),
            other => Ok(other?),
        }
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all_at(bytes, offset)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.forget(from);
        self.forget(to);
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.forget(name);
        std::fs::remove_file(self.path(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.inner.path)?.sync_all()
    }
}
