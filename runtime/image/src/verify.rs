//! Verification: whether an image is still what its digests say, long after it came.

use std::io::{self, Read};

use crate::blob::{self, Hashing};
use crate::document::{self, Descriptor};
use crate::store::{Record, Store};
use crate::{Error, Result, layer};

impl Store {
    /// Reads all blobs of an image, and of what came with it, again. Returns what is wrong, one sentence each: digests that are not met, layers that
    /// are not there or that do not unpack to their DiffID.
    pub fn verify(&self, reference: &str) -> Result<Vec<String>> {
        let (id, record) = self.find(reference)?.ok_or_else(|| Error::NotFound(reference.to_owned()))?;
        let mut faults = Vec::new();
        let mut check = |result: Result<()>| faults.extend(result.err().map(|error| error.to_string()));
        for digest in [&record.manifest, &id] {
            let read = self.read_blob(digest);
            check(read.and_then(|bytes| same(digest, blob::digest(&bytes))));
        }
        if faults.is_empty() {
            self.verify_layers(&id, &record, &mut faults)?;
        }
        for digest in &record.referrers {
            faults.extend(self.verify_referrer(digest).err().map(|error| error.to_string()));
        }
        Ok(faults)
    }

    fn verify_referrer(&self, digest: &str) -> Result<()> {
        let bytes = self.read_blob(digest)?;
        same(digest, blob::digest(&bytes))?;
        let document = document::parse(&bytes, digest)?;
        document.blobs().try_for_each(|blob| self.verify_blob(blob, None))
    }

    /// Whether a blob has the bytes that its descriptor says.
    fn verify_blob(&self, descriptor: &Descriptor, layer: Option<&str>) -> Result<()> {
        let (got, bytes) = read(self.open_blob(descriptor, layer)?, descriptor)?;
        same(&descriptor.digest, got)?;
        match bytes == descriptor.size {
            true => Ok(()),
            false => {
                let size = descriptor.size;
                Err(Error::Malformed(format!("{}: {bytes} bytes; its manifest says {size}", descriptor.digest)))
            }
        }
    }

    fn verify_layers(&self, id: &str, record: &Record, faults: &mut Vec<String>) -> Result<()> {
        let manifest = self.manifest(&record.manifest)?;
        let configuration = document::configuration(&self.read_blob(id)?, id)?;
        let layers = manifest.layers.iter().zip(&configuration.rootfs.diff_ids).zip(&record.chain);
        for ((descriptor, diff), chain) in layers {
            faults.extend(self.verify_layer(descriptor, diff, chain).err().map(|error| error.to_string()));
            let unpacked = self.layers().join(blob::hex(chain)?);
            if !unpacked.is_dir() {
                faults.push(format!("{}: not unpacked", descriptor.digest));
            }
        }
        Ok(())
    }

    fn verify_layer(&self, descriptor: &Descriptor, diff: &str, chain: &str) -> Result<()> {
        self.verify_blob(descriptor, Some(chain))?;
        let plain = layer::decompress(self.open_blob(descriptor, Some(chain))?)?;
        same(diff, read(plain, descriptor)?.0)
    }
}

/// The digest and the number of the bytes of a stream.
fn read(stream: Box<dyn Read + Send>, of: &Descriptor) -> Result<(String, u64)> {
    let mut stream = Hashing::new(stream);
    io::copy(&mut stream, &mut io::sink()).map_err(|e| Error::Malformed(format!("{}: {e}", of.digest)))?;
    let (_, digest, bytes) = stream.finish();
    Ok((digest, bytes))
}

fn same(expected: &str, got: String) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Digest { digest: expected.to_owned(), got }) }
}
