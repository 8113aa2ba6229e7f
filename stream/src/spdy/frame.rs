//! The frames of SPDY/3 (sections 2.2 and 2.6 of its specification).

use bytes::{BufMut, BytesMut};

const VERSION: u16 = 3;
pub(crate) const FIN: u8 = 1;
/// A control frame longer than this is an error.
pub(crate) const MAX_CONTROL: u32 = 64 * 1024;

pub(crate) const SYN_STREAM: u16 = 1;
pub(crate) const SYN_REPLY: u16 = 2;
pub(crate) const RST_STREAM: u16 = 3;
pub(crate) const PING: u16 = 6;
pub(crate) const GOAWAY: u16 = 7;
pub(crate) const HEADERS: u16 = 8;

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Control { kind: u16, flags: u8, length: u32 },
    Data { stream: u32, flags: u8, length: u32 },
}

impl Head {
    /// Reads a head; `None` for another version of SPDY.
    pub(crate) fn parse(bytes: [u8; 8]) -> Option<Self> {
        let [a, b, c, d, flags, e, f, g] = bytes;
        let length = u32::from_be_bytes([0, e, f, g]);
        if a & 0x80 == 0 {
            return Some(Self::Data { stream: u32::from_be_bytes([a, b, c, d]), flags, length });
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        (version == VERSION).then(|| Self::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }
}

/// Writes a control frame.
pub(crate) fn control(out: &mut BytesMut, kind: u16, flags: u8, payload: &[u8]) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, flags, payload.len());
    out.put_slice(payload);
}

/// Writes the head of a data frame.
pub(crate) fn data(out: &mut BytesMut, stream: u32, flags: u8, length: usize) {
    out.put_u32(stream & 0x7fff_ffff);
    put_length(out, flags, length);
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX).min(0x00ff_ffff);
    out.put_u32(u32::from(flags) << 24 | length);
}

/// The 31-bit number at the begin of a payload.
pub(crate) fn stream_id(payload: &[u8]) -> Option<u32> {
    let bytes = payload.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}
