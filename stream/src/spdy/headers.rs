//! Header blocks: names and values with their lengths, in one zlib stream a direction and connection.

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;
use crate::Error;

/// A block that inflates to more is an error.
const MAX_BLOCK: usize = 64 * 1024;

/// Headers in order, names in lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// The reading side.
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Reads one block. All blocks of a connection must pass, in order.
    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Headers, Error> {
        parse(&self.inflate(block)?).ok_or(Error::Spdy("broken header block"))
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, Error> {
        let bad = || Error::Spdy("header block does not inflate");
        let (mut out, mut at) = (Vec::with_capacity(4096), 0);
        loop {
            let before = (self.0.total_in(), out.len());
            let rest = block.get(at..).unwrap_or_default();
            let result = self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            at += usize::try_from(self.0.total_in() - before.0).unwrap_or(rest.len());
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| bad())?;
                    continue;
                }
                Err(_) => return Err(bad()),
                Ok(Status::StreamEnd) => return Err(bad()),
                Ok(_) => {}
            }
            if out.len() < out.capacity() && (at == block.len() || before == (self.0.total_in(), out.len())) {
                return Ok(out);
            }
            if out.len() >= MAX_BLOCK {
                return Err(Error::Spdy("header block is too large"));
            }
            out.reserve(4096);
        }
    }
}

fn parse(mut block: &[u8]) -> Option<Headers> {
    let count = block.try_get_u32().ok()?;
    let mut text = || -> Option<String> {
        let length = usize::try_from(block.try_get_u32().ok()?).ok()?;
        let (text, rest) = block.split_at_checked(length)?;
        block = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    (0..count).map(|_| Some((text()?.to_lowercase(), text()?))).collect()
}

/// The writing side.
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // It fails only after the first byte; without it the peer would still read us.
        let _ = compress.set_dictionary(DICTIONARY);
        Self(compress)
    }

    /// Writes one block.
    pub(crate) fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
        let mut plain = BytesMut::new();
        let put = |plain: &mut BytesMut, text: &str| {
            plain.put_u32(u32::try_from(text.len()).unwrap_or_default());
            plain.put_slice(text.as_bytes());
        };
        plain.put_u32(u32::try_from(headers.len()).unwrap_or_default());
        for (name, value) in headers {
            put(&mut plain, name);
            put(&mut plain, value);
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let done = self.0.compress_vec(&plain, &mut out, FlushCompress::Sync);
        done.map_err(|_| Error::Spdy("header block does not deflate"))?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::{Deflater, Inflater};

    #[test]
    fn blocks_of_one_connection_share_their_state() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let long = "x".repeat(9000);
        for headers in [vec![("streamtype", "data"), ("port", "80")], vec![], vec![("a", long.as_str())]] {
            let block = deflater.write(&headers).unwrap();
            let read = inflater.read(&block).unwrap();
            let read: Vec<(&str, &str)> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(read, headers);
        }
        assert!(inflater.read(b"garbage").is_err());
    }

    #[test]
    fn a_bomb_is_refused() {
        let huge = "x".repeat(1 << 20);
        let block = Deflater::new().write(&[("a", &huge)]);
        assert!(block.and_then(|block| Inflater::new().read(&block)).is_err());
    }
}
