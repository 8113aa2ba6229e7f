//! The bytes of log segments. Pure.
//!
//! A segment is a header, frames, and zeros up to its reserved length. A frame is what one durable write carries: a
//! head, records with an index and a checksum each, and a tail mark. Only one frame is ever under way, so only the last
//! one of the last segment can be torn; whatever is wrong anywhere else is damage. The marks at the end of head and
//! frame are not zero, so that a frame that stops short can be told from one that was changed afterwards.

use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::{Entry, EntryType, HardState};

/// The version of the segment format; a reader refuses others.
const FORMAT: u32 = 1;
const SEGMENT_MAGIC: &[u8; 12] = b"trimtab log\n";
/// Bytes of a segment before its first frame.
pub(crate) const SEGMENT_HEAD: usize = 40;

const FRAME_MAGIC: u32 = 0x6d61_7266;
const FRAME_HEAD: usize = 24;
const MARK: u32 = 0xa5a5_a5a5;
/// Frames begin at multiples of this, so that a search for them need not look at every byte.
const ALIGN: usize = 8;
const RECORD_HEAD: usize = 25;
const SECTOR: usize = 512;

const HARD_STATE: u8 = 1;
const ENTRY: u8 = 2;
const CLEARED: u8 = 3;

/// One record of the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// Raft's term, vote and commit index.
    HardState(HardState),
    /// An entry; it replaces those with its index and higher ones.
    Entry(Entry),
    /// All entries before are void: a snapshot up to this index and term took their place.
    Cleared(u64, u64),
}

/// The head of a segment: which one it is and the number of its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    pub(crate) cluster: u64,
    pub(crate) first_frame: u64,
    /// The file was never shorter than this, in bytes; 0 where a program wrote it that did not say.
    pub(crate) reserved: u32,
}

impl SegmentHead {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEAD);
        out.put_slice(SEGMENT_MAGIC);
        out.put_u32_le(FORMAT);
        out.put_u64_le(self.cluster);
        out.put_u64_le(self.first_frame);
        out.put_u32_le(self.reserved);
        let crc = crc32fast::hash(&out);
        out.put_u32_le(crc);
        out
    }

    /// What stands at the beginning of a segment, or what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut head = bytes.get(..SEGMENT_HEAD).ok_or("the segment is shorter than its head")?;
        let crc = crc32fast::hash(head.get(..SEGMENT_HEAD - 4).unwrap_or_default());
        if !head.starts_with(SEGMENT_MAGIC) {
            return Err("not a log segment".to_owned());
        }
        head.advance(SEGMENT_MAGIC.len());
        let format = head.get_u32_le();
        let segment = Self { cluster: head.get_u64_le(), first_frame: head.get_u64_le(), reserved: head.get_u32_le() };
        if head.get_u32_le() != crc {
            return Err("the checksum of the segment's head does not match".to_owned());
        }
        match format {
            FORMAT => Ok(segment),
            other => Err(format!("format version {other}; this program reads version {FORMAT}")),
        }
    }
}

/// Appends a frame with these records; `out` must begin at a multiple of eight in the segment.
pub(crate) fn encode<'a>(number: u64, records: impl IntoIterator<Item = Encode<'a>>, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_bytes(0, FRAME_HEAD);
    for record in records {
        record.write(out);
    }
    let size = (out.len() - start - FRAME_HEAD) as u32;
    out.put_u32_le(MARK);
    out.put_bytes(0, out.len().next_multiple_of(ALIGN) - out.len());
    let mut head = Vec::with_capacity(FRAME_HEAD);
    head.put_u32_le(FRAME_MAGIC);
    head.put_u64_le(number);
    head.put_u32_le(size);
    head.put_u32_le(crc32fast::hash(&head));
    head.put_u32_le(MARK);
    if let Some(place) = out.get_mut(start..start + FRAME_HEAD) {
        place.copy_from_slice(&head);
    }
}

/// A record to write, borrowed.
#[derive(Clone)]
pub(crate) enum Encode<'a> {
    HardState(&'a HardState),
    Entry(&'a Entry),
    Cleared(u64, u64),
}

impl Encode<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::HardState(hs) => {
                head(out, HARD_STATE, 8, hs.commit, hs.term);
                out.put_u64_le(hs.vote);
            }
            Self::Entry(entry) => {
                let size = 2 + entry.context.len() + entry.data.len();
                head(out, ENTRY, size, entry.index, entry.term);
                out.put_u8(entry.get_entry_type() as u8);
                out.put_u8(entry.context.len() as u8);
                out.put_slice(&entry.context);
                out.put_slice(&entry.data);
            }
            Self::Cleared(index, term) => head(out, CLEARED, 0, *index, *term),
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(out.get(start + 4..).unwrap_or_default());
        let crc = crc.finalize().to_le_bytes();
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&crc);
        }
    }
}

fn head(out: &mut Vec<u8>, kind: u8, size: usize, index: u64, term: u64) {
    out.put_u32_le(0);
    out.put_u8(kind);
    out.put_u32_le(size as u32);
    out.put_u64_le(index);
    out.put_u64_le(term);
}

/// What stands at an offset of a segment.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// A whole frame, and where the next one begins.
    Frame(Vec<Record>, usize),
    /// Nothing was written here.
    End,
    /// The beginning of a frame whose rest never reached the disk.
    Torn,
    /// A frame that was changed after it had been written: what is wrong with it.
    Damaged(&'static str),
}

/// Reads the frame with this number at `offset`.
pub(crate) fn decode(segment: &Bytes, offset: usize, number: u64) -> Found {
    let Some(mut head) = segment.get(offset..offset + FRAME_HEAD) else {
        let rest = segment.get(offset..).unwrap_or_default();
        return if rest.iter().all(|b| *b == 0) { Found::End } else { Found::Torn };
    };
    if head.iter().all(|b| *b == 0) {
        return Found::End;
    }
    match frame_size(head) {
        Some((found, size)) if found == number => body(segment, offset, size),
        Some(_) => Found::Damaged("a frame stands out of order"),
        None => {
            let magic = head.get_u32_le();
            head.advance(FRAME_HEAD - 8);
            // Head or end never written (also where a sector ends within): torn. All of it there but wrong: changed.
            match (magic, head.get_u32_le().to_le_bytes()) {
                (0, _) | (_, [_, _, _, 0]) => Found::Torn,
                _ => Found::Damaged("the checksum of a frame's head does not match"),
            }
        }
    }
}

/// The number and size of a frame by its head, if that is whole.
fn frame_size(mut head: &[u8]) -> Option<(u64, usize)> {
    if !head.starts_with(&FRAME_MAGIC.to_le_bytes()) {
        return None;
    }
    let crc = crc32fast::hash(head.get(..FRAME_HEAD - 8)?);
    head.advance(4);
    let number = head.get_u64_le();
    let size = head.get_u32_le() as usize;
    (head.get_u32_le() == crc && head.get_u32_le() == MARK).then_some((number, size))
}

fn body(segment: &Bytes, offset: usize, size: usize) -> Found {
    let start = offset + FRAME_HEAD;
    let end = start + size + 4;
    if end > segment.len() {
        return Found::Torn;
    }
    let mark = segment.get(start + size..end).unwrap_or_default();
    if mark != MARK.to_le_bytes() {
        // Cut off within the mark or before it: its last byte is missing.
        let torn = mark.last() == Some(&0);
        return if torn { Found::Torn } else { Found::Damaged("the end mark of a frame is not there") };
    }
    match records(segment.slice(start..start + size)) {
        Some(records) => Found::Frame(records, end.next_multiple_of(ALIGN)),
        None if lost_sector(segment, offset, end) => Found::Torn,
        None => Found::Damaged("the checksum of a record does not match"),
    }
}

/// Whether a whole sector within the frame never reached the disk.
fn lost_sector(segment: &Bytes, start: usize, end: usize) -> bool {
    let mut sectors = start.next_multiple_of(SECTOR)..end.saturating_sub(SECTOR) + 1;
    sectors.any(|at| at % SECTOR == 0 && segment.get(at..at + SECTOR).is_some_and(|s| s.iter().all(|b| *b == 0)))
}

fn records(mut from: Bytes) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while !from.is_empty() {
        let whole = from.clone();
        if from.len() < RECORD_HEAD {
            return None;
        }
        let crc = from.get_u32_le();
        let kind = from.get_u8();
        let size = from.get_u32_le() as usize;
        let (index, term) = (from.get_u64_le(), from.get_u64_le());
        if size > from.len() || crc32fast::hash(whole.get(4..RECORD_HEAD + size)?) != crc {
            return None;
        }
        records.push(record(kind, index, term, from.split_to(size))?);
    }
    Some(records)
}

fn record(kind: u8, index: u64, term: u64, mut data: Bytes) -> Option<Record> {
    match kind {
        HARD_STATE => {
            let vote = data.try_get_u64_le().ok()?;
            Some(Record::HardState(HardState { term, vote, commit: index, ..HardState::default() }))
        }
        ENTRY => {
            let entry_type = match data.try_get_u8().ok()? {
                0 => EntryType::EntryNormal,
                1 => EntryType::EntryConfChange,
                2 => EntryType::EntryConfChangeV2,
                _ => return None,
            };
            let context = data.try_get_u8().ok()? as usize;
            let context = (context <= data.len()).then(|| data.split_to(context))?;
            // A copy each: a slice would keep the whole segment in memory as long as one of its values lives.
            let (context, data) = (Bytes::copy_from_slice(&context), Bytes::copy_from_slice(&data));
            Some(Record::Entry(Entry { entry_type, index, term, data, context, ..Entry::default() }))
        }
        CLEARED => Some(Record::Cleared(index, term)),
        _ => None,
    }
}

/// Whether a whole head of a frame with a higher number stands anywhere from `offset` on.
pub(crate) fn later_frame(segment: &[u8], offset: usize, number: u64) -> Option<usize> {
    let start = offset.next_multiple_of(ALIGN);
    let places = segment.get(start..)?.chunks_exact(ALIGN);
    let heads = places.enumerate().filter(|(_, b)| b.starts_with(&FRAME_MAGIC.to_le_bytes()));
    let later = |at: &usize| segment.get(*at..at + FRAME_HEAD).and_then(frame_size).is_some_and(|(n, _)| n > number);
    heads.map(|(i, _)| start + i * ALIGN).find(later)
}
