//! Snapshots: the whole state at one index of the log, in parts with a checksum each. Pure but for the last step.
//!
//! The same bytes are a file of this member and what a leader sends to one that lags too far behind.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use raft::eraftpb::ConfState;

use super::disk::Disk;
use super::log::{corrupt, failed};
use crate::Error;
use crate::served::Served;
use crate::state::State;
use crate::state::codec::{Head, Loader};

/// The version of the snapshot format; a reader refuses others.
const FORMAT: u32 = 1;
const MAGIC: &[u8; 12] = b"trimtab snap";
const HEAD: u8 = 1;
const KEYS: u8 = 2;
const END: u8 = 3;

/// About how many bytes one part has; the state is locked for reading while one is made.
const PART_BYTES: usize = 256 * 1024;

/// Where in the log a snapshot stands and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Meta {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) conf: ConfState,
    /// It came from the leader and replaced what this member had.
    pub(crate) installed: bool,
}

impl Meta {
    /// The name of the snapshot's file.
    pub(crate) fn name(&self) -> String {
        format!("snap-{:016x}", self.index)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.cluster, self.member, self.index, self.term] {
            out.put_u64_le(number);
        }
        out.put_u8(u8::from(self.installed));
        let conf = &self.conf;
        for ids in [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next] {
            out.put_u32_le(ids.len() as u32);
            ids.iter().for_each(|id| out.put_u64_le(*id));
        }
        out.put_u8(u8::from(conf.auto_leave));
        out
    }

    fn decode(from: &mut Bytes) -> Result<Self, bytes::TryGetError> {
        let (cluster, member) = (from.try_get_u64_le()?, from.try_get_u64_le()?);
        let (index, term) = (from.try_get_u64_le()?, from.try_get_u64_le()?);
        let installed = from.try_get_u8()? != 0;
        let mut conf = ConfState::default();
        for ids in [&mut conf.voters, &mut conf.learners, &mut conf.voters_outgoing, &mut conf.learners_next] {
            for _ in 0..from.try_get_u32_le()? {
                ids.push(from.try_get_u64_le()?);
            }
        }
        conf.auto_leave = from.try_get_u8()? != 0;
        Ok(Self { cluster, member, index, term, conf, installed })
    }
}

fn part(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let start = out.len() + 4;
    out.put_u32_le(0);
    out.put_u8(kind);
    out.put_u32_le(body.len() as u32);
    out.put_slice(body);
    let crc = crc32fast::hash(out.get(start..).unwrap_or_default()).to_le_bytes();
    if let Some(place) = out.get_mut(start - 4..start) {
        place.copy_from_slice(&crc);
    }
}

/// Makes a snapshot part by part while the store goes on.
pub(crate) struct Writer {
    served: Arc<Served>,
    head: Head,
    after: Bytes,
    next: Next,
    meta: Meta,
}

enum Next {
    Head,
    Keys,
    End,
    Nothing,
}

impl Writer {
    /// Begins a snapshot of what is served now; `meta` says which index that is.
    pub(crate) fn new(served: Arc<Served>, meta: Meta) -> Self {
        let head = served.read(State::head);
        Self { served, head, after: Bytes::new(), next: Next::Head, meta }
    }

    /// Appends the next part; false when there was none left. A compaction meanwhile spoils the snapshot.
    pub(crate) fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, Error> {
        match self.next {
            Next::Head => self.begin(out),
            Next::Keys => self.keys(out)?,
            Next::End => {
                part(out, END, &[]);
                self.next = Next::Nothing;
            }
            Next::Nothing => return Ok(false),
        }
        Ok(true)
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        out.put_slice(MAGIC);
        out.put_u32_le(FORMAT);
        part(out, HEAD, &[self.meta.encode(), self.head.encode()].concat());
        self.next = Next::Keys;
    }

    fn keys(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let (compacted, keys) =
            self.served.read(|s| (s.compacted(), s.encode_keys(&self.after, self.head.revision, PART_BYTES)));
        if compacted != self.head.compacted {
            return Err(Error::Compacted(compacted));
        }
        match keys {
            Some((bytes, last)) => {
                part(out, KEYS, &bytes);
                self.after = last;
            }
            None => self.next = Next::End,
        }
        Ok(())
    }

    /// All of it at once.
    pub(crate) fn whole(mut self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        while self.step(&mut out)? {}
        Ok(out)
    }

    /// Writes it to disk. Its name stands only when all of it is durable; then older ones go.
    pub(crate) fn save<D: Disk>(mut self, disk: &D) -> Result<(Meta, usize), Error> {
        let temporary = format!("{}.tmp", self.meta.name());
        let saved = self.write(disk, &temporary);
        let saved = saved.and_then(|size| publish(disk, &temporary, &self.meta).map(|()| size));
        if saved.is_err() {
            // Half a snapshot is of no use and takes space.
            let _ = disk.remove(&temporary);
        }
        saved.map(|size| (self.meta, size))
    }

    fn write<D: Disk>(&mut self, disk: &D, name: &str) -> Result<usize, Error> {
        let mut at = 0;
        let mut buffer = Vec::new();
        while self.step(&mut buffer)? {
            disk.write(name, at, &buffer).map_err(|e| failed("writing", name, &e))?;
            at += buffer.len() as u64;
            buffer.clear();
        }
        disk.sync(name).map_err(|e| failed("writing", name, &e))?;
        Ok(at as usize)
    }
}

/// Writes a snapshot that came from the leader.
pub(crate) fn install<D: Disk>(disk: &D, meta: &Meta, state: State) -> Result<(), Error> {
    let served = Arc::new(Served::new(state));
    Writer::new(served, meta.clone()).save(disk).map(|_| ())
}

fn publish<D: Disk>(disk: &D, temporary: &str, meta: &Meta) -> Result<(), Error> {
    let name = meta.name();
    let publish = || {
        disk.rename(temporary, &name)?;
        disk.sync_names()?;
        for old in disk.list()?.iter().filter(|n| n.starts_with("snap-") && **n < name && !n.ends_with(".tmp")) {
            disk.remove(old)?;
        }
        Ok(())
    };
    publish().map_err(|e| failed("writing", &name, &e))
}

/// The newest snapshot of a directory; nothing if it is new. Unfinished ones are removed.
pub(crate) fn open<D: Disk>(disk: &D) -> Result<Option<(Meta, State, usize)>, Error> {
    let names = disk.list().map_err(|e| failed("listing", "the data directory", &e))?;
    for name in names.iter().filter(|n| n.starts_with("snap-") && n.ends_with(".tmp")) {
        disk.remove(name).map_err(|e| failed("removing", name, &e))?;
    }
    let newest = names.iter().filter(|n| n.starts_with("snap-") && !n.ends_with(".tmp")).max();
    let Some(name) = newest else {
        return match names.iter().find(|n| n.starts_with("log-")) {
            Some(log) => Err(corrupt(log, 0, "there is a log but no snapshot beside it")),
            None => Ok(None),
        };
    };
    let bytes = Bytes::from(disk.read(name).map_err(|e| failed("reading", name, &e))?);
    let size = bytes.len();
    match load(bytes.clone()) {
        Ok((meta, state)) if meta.name() == *name => Ok(Some((meta, state, size))),
        Ok(_) => Err(corrupt(name, 0, "the file does not hold what its name says")),
        Err((left, what)) => Err(corrupt(name, size - left, &what)),
    }
}

/// Reads a snapshot. The error says how many bytes were left and what was wrong.
pub(crate) fn load(mut from: Bytes) -> Result<(Meta, State), (usize, String)> {
    if from.len() < MAGIC.len() + 4 || !from.starts_with(MAGIC) {
        return Err((from.len(), "not a snapshot".to_owned()));
    }
    from.advance(MAGIC.len());
    match from.get_u32_le() {
        FORMAT => {}
        other => return Err((from.len() + 4, format!("format version {other}; this program reads version {FORMAT}"))),
    }
    let mut loading: Option<(Meta, Loader)> = None;
    loop {
        let left = from.len();
        let wrong = |what: &str| (left, what.to_owned());
        let (kind, mut body) = next_part(&mut from).ok_or_else(|| wrong("the checksum of a part does not match"))?;
        match (kind, &mut loading) {
            (HEAD, None) => {
                let meta = Meta::decode(&mut body).map_err(|_| wrong("the head stops short"))?;
                let head = Head::decode(&mut body).map_err(|e| wrong(e.0))?;
                loading = Some((meta, Loader::new(head)));
            }
            (KEYS, Some((_, loader))) => loader.keys(body).map_err(|e| wrong(e.0))?,
            (END, Some(_)) if from.is_empty() => break,
            _ => return Err(wrong("a part stands out of order")),
        }
    }
    let (meta, loader) = loading.ok_or((0, "there is no head".to_owned()))?;
    Ok((meta, loader.finish().map_err(|e| (0, e.0.to_owned()))?))
}

fn next_part(from: &mut Bytes) -> Option<(u8, Bytes)> {
    let crc = from.try_get_u32_le().ok()?;
    let whole = from.clone();
    let kind = from.try_get_u8().ok()?;
    let size = from.try_get_u32_le().ok()? as usize;
    let checked = whole.get(..size.checked_add(5)?)?;
    if crc32fast::hash(checked) != crc {
        return None;
    }
    Some((kind, from.split_to(size)))
}
