//! Verification: whether an image is still what its digests say, long after it came.

use std::io::{self, Read};

use crate::blob::{self, Hashing};
use crate::document::Descriptor;
use crate::store::{Record, Store};
use crate::{Error, Result, layer};

impl Store {
    /// Reads all blobs of an image again. Returns what is wrong, one sentence each: digests that are not met, layers that
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
        Ok(faults)
    }

    fn verify_layers(&self, id: &str, record: &Record, faults: &mut Vec<String>) -> Result<()> {
        let manifest = self.manifest(&record.manifest)?;
        let configuration = crate::document::configuration(&self.read_blob(id)?, id)?;
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
        let read = |stream: Box<dyn Read + Send>| -> Result<(String, u64)> {
            let mut stream = Hashing::new(stream);
            let failed = |e: io::Error| Error::Malformed(format!("{}: {e}", descriptor.digest));
            io::copy(&mut stream, &mut io::sink()).map_err(failed)?;
            let (_, digest, bytes) = stream.finish();
            Ok((digest, bytes))
        };
        let (got, bytes) = read(self.open_blob(descriptor, Some(chain))?)?;
        same(&descriptor.digest, got)?;
        if bytes != descriptor.size {
            let size = descriptor.size;
            return Err(Error::Malformed(format!("{}: {bytes} bytes; its manifest says {size}", descriptor.digest)));
        }
        let plain = layer::decompress(self.open_blob(descriptor, Some(chain))?)?;
        same(diff, read(plain)?.0)
    }
}

fn same(expected: &str, got: String) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Digest { digest: expected.to_owned(), got }) }
}
