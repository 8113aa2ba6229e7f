//! The log on disk: segments of reserved space that frames are appended to, one durable write at a time.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};

use super::disk::Disk;
use super::frame::{self, Encode, Found, Record, SEGMENT_HEAD, SegmentHead};
use crate::Error;

/// The segment that is made ahead of need, so that the log can go on for a while when the disk is full.
const SPARE: &str = "spare.tmp";

/// How full a segment gets before the next one is begun.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// The reserved length of a segment, in bytes.
    pub segment_bytes: usize,
}

/// The segments of one member's log.
pub(crate) struct Log<D> {
    disk: D,
    config: LogConfig,
    cluster: u64,
    /// The segment that is appended to.
    name: String,
    offset: usize,
    len: usize,
    next_frame: u64,
    hard_state: HardState,
    last_index: u64,
    /// Segments that are full, with the last index in each.
    full: VecDeque<(String, u64)>,
    spare: bool,
    buffer: Vec<u8>,
}

/// What a log held when it was opened.
#[derive(Default)]
pub(crate) struct Recovered {
    pub(crate) hard_state: HardState,
    /// In the order of their indexes, without a gap.
    pub(crate) entries: Vec<Entry>,
}

/// The name of the segment that begins with this frame.
fn segment_name(first_frame: u64) -> String {
    format!("log-{first_frame:016x}.seg")
}

/// Says what is damaged, where, and what can be done.
pub(crate) fn corrupt(name: &str, offset: usize, what: &str) -> Error {
    Error::Corrupt(format!(
        "{name}: damaged at offset {offset}: {what}. Nothing was changed. Starting from here could lose writes that \
         were acknowledged: restore the data directory from a backup, or remove this member from its cluster, empty \
         the directory and let it join again"
    ))
}

/// Turns what the operating system said into what the store says.
pub(crate) fn failed(doing: &str, name: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace,
        _ => Error::Unavailable(format!("{doing} {name}: {error}")),
    }
}

impl<D: Disk> Log<D> {
    /// Opens the log, or begins one if there is none (which is only right beside the first snapshot).
    /// `base` is the index and term up to which a snapshot stands for the entries; `installed` says that it came from
    /// the leader and so voids what the log held when it came.
    pub(crate) fn open(
        disk: D,
        config: LogConfig,
        cluster: u64,
        base: (u64, u64),
        installed: bool,
    ) -> Result<(Self, Recovered), Error> {
        let names = disk.list().map_err(|e| failed("listing", "the data directory", &e))?;
        let mut segments: Vec<String> = names.iter().filter(|n| n.starts_with("log-")).cloned().collect();
        segments.sort();
        let mut log = Self {
            disk,
            config,
            cluster,
            name: String::new(),
            offset: SEGMENT_HEAD,
            len: 0,
            next_frame: 1,
            hard_state: HardState::default(),
            last_index: base.0,
            full: VecDeque::new(),
            // One that is there may lack its space: a power cut can have kept its name alone.
            spare: false,
            buffer: Vec::new(),
        };
        let mut replay = Replay { base, ..Replay::default() };
        if segments.is_empty() {
            if base.0 > super::FIRST_INDEX {
                return Err(corrupt("log-*.seg", 0, "there is a snapshot but no log beside it"));
            }
            log.drop_spare()?;
            log.begin_segment()?;
        } else {
            log.replay(&segments, &mut replay)?;
        }
        log.hard_state = replay.hard_state.clone();
        log.last_index = replay.entries.last().map_or(base.0, |e| e.index);
        if installed && !replay.cleared {
            log.clear(base.0, base.1)?;
            replay.entries.clear();
        }
        Ok((log, Recovered { hard_state: replay.hard_state, entries: replay.entries }))
    }

    fn replay(&mut self, segments: &[String], replay: &mut Replay) -> Result<(), Error> {
        for (i, name) in segments.iter().enumerate() {
            let bytes = Bytes::from(self.disk.read(name).map_err(|e| failed("reading", name, &e))?);
            let head = SegmentHead::decode(&bytes).map_err(|what| corrupt(name, 0, &what))?;
            if i == 0 {
                self.next_frame = head.first_frame;
            }
            if head.first_frame != self.next_frame || *name != segment_name(head.first_frame) {
                return Err(corrupt(name, 0, "the segment before it is missing or stops short"));
            }
            if head.cluster != self.cluster {
                return Err(corrupt(name, 0, "the segment belongs to another store"));
            }
            if bytes.len() < head.reserved as usize {
                let what = format!("the file ends here, but it was made with {} bytes", head.reserved);
                return Err(corrupt(name, bytes.len(), &what));
            }
            (self.name, self.offset, self.len) = (name.clone(), SEGMENT_HEAD, bytes.len());
            self.replay_segment(&bytes, i + 1 == segments.len(), replay)?;
            if i + 1 < segments.len() {
                let last = replay.entries.last().map_or(replay.base.0, |e| e.index);
                self.full.push_back((name.clone(), last));
            }
        }
        Ok(())
    }

    /// Reads a segment to its end; in the last one a torn tail is cut.
    fn replay_segment(&mut self, bytes: &Bytes, last: bool, replay: &mut Replay) -> Result<(), Error> {
        loop {
            let found = frame::decode(bytes, self.offset, self.next_frame);
            if !matches!(found, Found::Frame(..))
                && let Some(at) = frame::later_frame(bytes, self.offset, self.next_frame)
            {
                let what = format!("what was written here is not whole, but what was written later at {at} is");
                return Err(corrupt(&self.name, self.offset, &what));
            }
            match found {
                Found::Frame(records, next) => {
                    replay.take(records).map_err(|what| corrupt(&self.name, self.offset, what))?;
                    (self.offset, self.next_frame) = (next, self.next_frame + 1);
                }
                Found::Damaged(what) => return Err(corrupt(&self.name, self.offset, what)),
                Found::Torn if !last => return Err(corrupt(&self.name, self.offset, "a frame stops short")),
                Found::Torn => return self.cut(bytes),
                Found::End if last => return self.cut(bytes),
                Found::End => return Ok(()),
            }
        }
    }

    /// Makes everything from the present offset on zero again, should it not be. The file keeps its length, so that one
    /// that was cut short by others can be told from it.
    fn cut(&self, bytes: &Bytes) -> Result<(), Error> {
        let rest = bytes.get(self.offset..).unwrap_or_default();
        let Some(last) = rest.iter().rposition(|b| *b != 0) else { return Ok(()) };
        let name = self.name.as_str();
        tracing::warn!(segment = name, offset = self.offset, "cutting off a write that was not finished");
        let zeros = vec![0; last + 1];
        let cut = self.disk.write(name, self.offset as u64, &zeros).and_then(|()| self.disk.sync(name));
        cut.map_err(|e| failed("cutting", name, &e))
    }

    /// Makes records durable: one write, one sync.
    pub(crate) fn append(&mut self, hard_state: Option<&HardState>, entries: &[Entry]) -> Result<(), Error> {
        let records = hard_state.map(Encode::HardState).into_iter().chain(entries.iter().map(Encode::Entry));
        self.write(records)?;
        // Not before: a segment that begins meanwhile must not say that entries are committed that only follow.
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state.clone();
        }
        self.last_index = entries.last().map_or(self.last_index, |e| e.index);
        Ok(())
    }

    /// Voids all entries: a snapshot from the leader, up to this index and term, took their place.
    pub(crate) fn clear(&mut self, index: u64, term: u64) -> Result<(), Error> {
        self.write([Encode::Cleared(index, term)])?;
        self.last_index = index;
        Ok(())
    }

    fn write<'a>(&mut self, records: impl IntoIterator<Item = Encode<'a>> + Clone) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.write_with(records, &mut buffer);
        buffer.clear();
        buffer.shrink_to(self.config.segment_bytes / 16);
        self.buffer = buffer;
        written
    }

    fn write_with<'a>(
        &mut self,
        records: impl IntoIterator<Item = Encode<'a>> + Clone,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        frame::encode(self.next_frame, records.clone(), buffer);
        if self.offset + buffer.len() > self.len {
            self.begin_segment()?;
            buffer.clear();
            frame::encode(self.next_frame, records, buffer);
        }
        self.write_frame(buffer)
    }

    fn write_frame(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let (name, at) = (self.name.as_str(), self.offset as u64);
        let write = || self.disk.write(name, at, bytes).and_then(|()| self.disk.sync(name));
        write().map_err(|e| failed("writing", name, &e))?;
        self.offset += bytes.len();
        self.len = self.len.max(self.offset);
        self.next_frame += 1;
        Ok(())
    }

    /// Begins the next segment. Its name stands only when its head is durable, so a segment never lacks its head.
    fn begin_segment(&mut self) -> Result<(), Error> {
        self.make_spare()?;
        let reserved = u32::try_from(self.config.segment_bytes).unwrap_or(u32::MAX);
        let head = SegmentHead { cluster: self.cluster, first_frame: self.next_frame, reserved };
        let name = segment_name(self.next_frame);
        let begin = || {
            self.disk.write(SPARE, 0, &head.encode())?;
            self.disk.sync(SPARE)?;
            self.disk.rename(SPARE, &name)?;
            self.disk.sync_names()
        };
        begin().map_err(|e| failed("beginning", &name, &e))?;
        self.spare = false;
        let before = std::mem::replace(&mut self.name, name);
        if !before.is_empty() {
            self.full.push_back((before, self.last_index));
        }
        (self.offset, self.len) = (SEGMENT_HEAD, self.config.segment_bytes);
        let hard_state = self.hard_state.clone();
        let mut frame = Vec::new();
        frame::encode(self.next_frame, [Encode::HardState(&hard_state)], &mut frame);
        self.write_frame(&frame)
    }

    /// Makes sure that the next segment's space is reserved.
    pub(crate) fn make_spare(&mut self) -> Result<(), Error> {
        if !self.spare {
            if let Err(error) = self.disk.allocate(SPARE, self.config.segment_bytes as u64) {
                // What was reserved in part would keep others from using it.
                let _ = self.drop_spare();
                return Err(failed("reserving", SPARE, &error));
            }
            self.spare = true;
        }
        Ok(())
    }

    fn drop_spare(&mut self) -> Result<(), Error> {
        self.spare = false;
        match self.disk.remove(SPARE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", SPARE, &error)),
            _ => Ok(()),
        }
    }

    /// Whether a frame with so many bytes of commands fits into space that is reserved.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.spare || self.offset + bytes <= self.len
    }

    /// Removes the segments that a snapshot up to `index` stands for.
    pub(crate) fn release(&mut self, index: u64) -> Result<(), Error> {
        while let Some((name, _)) = self.full.pop_front_if(|(_, last)| *last <= index) {
            self.disk.remove(&name).map_err(|e| failed("removing", &name, &e))?;
        }
        Ok(())
    }

    /// All bytes of the segments that are still needed, about.
    pub(crate) fn bytes(&self) -> usize {
        self.full.len() * self.config.segment_bytes + self.offset
    }
}

/// Puts the log's content together from its records.
#[derive(Default)]
struct Replay {
    base: (u64, u64),
    hard_state: HardState,
    entries: Vec<Entry>,
    /// Whether the log says that the snapshot at `base` voided what came before.
    cleared: bool,
}

impl Replay {
    fn take(&mut self, records: Vec<Record>) -> Result<(), &'static str> {
        for record in records {
            match record {
                Record::HardState(hard_state) => self.hard_state = hard_state,
                Record::Cleared(index, term) => {
                    self.entries.clear();
                    self.cleared |= (index, term) == self.base;
                }
                Record::Entry(entry) if entry.index <= self.base.0 => self.entries.clear(),
                Record::Entry(entry) => self.entry(entry)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), &'static str> {
        let next = self.entries.last().map_or(self.base.0, |e| e.index) + 1;
        if entry.index > next {
            return Err("entries before this one are missing");
        }
        self.entries.truncate((entry.index - self.base.0 - 1) as usize);
        self.entries.push(entry);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::{Entry, HardState};

    use super::{Log, LogConfig};
    use crate::embedded::lossy::{Lossy, Unsynced};

    const CONFIG: LogConfig = LogConfig { segment_bytes: 512 };

    /// Appends entries that are committed as soon as they are there, as followers do, until the power fails.
    fn follow(disk: &Lossy) -> u64 {
        let Ok((mut log, _)) = Log::open(disk.clone(), CONFIG, 1, (1, 1), false) else { return 1 };
        for index in 2..40 {
            let hard_state = HardState { term: 1, commit: index, ..HardState::default() };
            let entry = Entry { index, term: 1, data: vec![7; 100].into(), ..Entry::default() };
            if log.append(Some(&hard_state), &[entry]).is_err() {
                return index - 1;
            }
        }
        39
    }

    #[test]
    fn what_a_log_calls_committed_it_has_wherever_it_was_cut() {
        let whole = Lossy::default();
        follow(&whole);
        for cut in 0..whole.written() {
            let disk = Lossy::default();
            disk.fuse(cut);
            let last = follow(&disk);
            for unsynced in [Unsynced::Kept, Unsynced::Lost] {
                let after = disk.after_power_cut(unsynced);
                let (_, found) = Log::open(after, CONFIG, 1, (1, 1), false).unwrap_or_else(|e| panic!("{cut}: {e}"));
                let has = found.entries.last().map_or(1, |entry| entry.index);
                assert!(
                    has >= last && has >= found.hard_state.commit,
                    "{cut}: {has} of {last}, {:?}",
                    found.hard_state
                );
            }
        }
    }

    #[test]
    fn a_segment_by_itself_knows_term_and_vote() {
        let disk = Lossy::default();
        let (mut log, _) = Log::open(disk.clone(), CONFIG, 1, (1, 1), false).expect("a log");
        let hard_state = HardState { term: 3, vote: 2, commit: 1, ..HardState::default() };
        log.append(Some(&hard_state), &[]).expect("written");
        for index in 2..20 {
            let entry = Entry { index, term: 3, data: vec![7; 100].into(), ..Entry::default() };
            log.append(None, &[entry]).expect("written");
        }
        log.release(10).expect("released");
        let (_, found) = Log::open(disk, CONFIG, 1, (10, 3), false).expect("a log");
        assert_eq!((found.hard_state.term, found.hard_state.vote), (3, 2));
    }
}
