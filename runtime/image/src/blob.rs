//! Blobs: content addressed by SHA-256, verified while they stream, made visible by one rename.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Error, Result, document, reference};

/// Writes what it is given and hashes it on the way.
#[derive(Debug)]
pub(crate) struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// The digest and the number of bytes seen.
    pub(crate) fn finish(self) -> (W, String, u64) {
        (self.inner, format_digest(self.hash), self.bytes)
    }

    /// The digest of what was seen so far.
    pub(crate) fn digest(&self) -> String {
        format_digest(self.hash.clone())
    }

    pub(crate) fn seen_bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn inner(&self) -> &W {
        &self.inner
    }

    pub(crate) fn saw(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.saw(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let (hash, bytes) = (&mut self.hash, &mut self.bytes);
        hash.update(buffer.get(..n).unwrap_or_default());
        *bytes += n as u64;
        Ok(n)
    }
}

/// `sha256:...` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format_digest(Sha256::new_with_prefix(bytes))
}

fn format_digest(hash: Sha256) -> String {
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The hexadecimal part of a digest; `Malformed` where it is none.
pub(crate) fn hex(digest: &str) -> Result<&str> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if reference::is_digest(digest) => Ok(hex),
        _ => Err(Error::Malformed(format!("unsupported digest {:?}", document::short(digest)))),
    }
}

/// Where a blob lives.
pub(crate) fn path(blobs: &Path, digest: &str) -> Result<PathBuf> {
    Ok(blobs.join(hex(digest)?))
}

/// A blob on its way in: a file in an ingest directory, verified and renamed by [`Incoming::commit`].
pub(crate) struct Incoming {
    path: PathBuf,
    out: Hashing<File>,
}

impl Incoming {
    pub(crate) fn create(ingest: &Path, name: &str) -> Result<Self> {
        let path = ingest.join(name);
        let file = File::create(&path).map_err(|e| io_error(&path, e))?;
        Ok(Self { path, out: Hashing::new(file) })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| io_error(&self.path, e))
    }

    /// Verifies against `expected` (where given), makes the bytes durable and visible; returns digest and size.
    pub(crate) fn commit(self, blobs: &Path, expected: Option<&str>) -> Result<(String, u64)> {
        let (file, got, bytes) = self.out.finish();
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            let _ = fs::remove_file(&self.path);
            return Err(Error::Digest { digest: expected.to_owned(), got });
        }
        file.sync_all().map_err(|e| io_error(&self.path, e))?;
        let target = path(blobs, &got)?;
        fs::rename(&self.path, &target).map_err(|e| io_error(&target, e))?;
        Ok((got, bytes))
    }
}

/// Writes a file by write, fsync, rename.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|e| io_error(path, e))
}

/// An I/O error with the path it happened at.
pub(crate) fn io_error(path: &Path, error: io::Error) -> Error {
    Error::Io(path.display().to_string(), error)
}
