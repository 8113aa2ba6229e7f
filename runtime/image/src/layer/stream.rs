//! The bytes of a layer or an archive: what compressed them is found out, and how many they are is bounded.

use std::io::{self, BufRead, BufReader, Read};

use super::malformed;
use crate::{Error, Result};

/// Plain, gzip or zstd, by their first bytes: media types are often wrong.
pub(crate) fn decompress(blob: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>> {
    let mut reader = BufReader::with_capacity(1 << 17, blob);
    let magic = reader.fill_buf().map_err(|e| Error::Io("layer".to_owned(), e))?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(zstd::Decoder::with_buffer(reader).map_err(malformed)?));
    }
    Ok(Box::new(reader))
}

/// A stream that may not be longer than allowed: a few kilobytes can unpack to any size.
pub(crate) struct Bounded<R> {
    pub(crate) inner: R,
    pub(crate) left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "more bytes than allowed"))?;
        Ok(n)
    }
}
