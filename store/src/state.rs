//! The state machine: every key with its readable versions, leases, and the changes that watches replay. Pure.
//!
//! `memory` applies commands at once, `embedded` applies those that its log has made durable; the result is the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::{Batch, Commit, Entry, Error, Event, LeaseId, Op, Page, Range, Revision, Txn};

pub(crate) mod codec;
mod lessor;

pub(crate) use lessor::Lessor;

/// The revision of a store in which nothing was ever written; the first change is the next one (as in etcd).
const EMPTY_REVISION: Revision = 1;

/// What one change costs in memory beside its bytes; a rounded-up guess that keeps the history's budget honest.
const CHANGE_OVERHEAD_BYTES: usize = 320;

/// What can be asked of the state machine; this, encoded, is what the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Txn(Txn),
    LeaseGrant { ttl_seconds: i64 },
    LeaseRevoke { lease: LeaseId },
    Compact { revision: Revision },
}

/// How a command ended.
#[derive(Debug)]
pub enum Applied {
    /// A transaction was decided.
    Commit(Commit),
    /// A lease was granted.
    Granted(LeaseId),
    /// Anything else was done.
    Done,
    /// It was not done.
    Refused(Error),
}

impl Command {
    /// Whether it needs space that only its successors can give back.
    pub(crate) fn grows(&self) -> bool {
        match self {
            Self::Txn(txn) => txn.ops.iter().any(|op| matches!(op, Op::Put { .. })),
            Self::LeaseGrant { .. } => true,
            Self::LeaseRevoke { .. } | Self::Compact { .. } => false,
        }
    }
}

impl Applied {
    /// The end of a transaction.
    pub(crate) fn commit(self) -> Result<Commit, Error> {
        match self {
            Self::Commit(commit) => Ok(commit),
            other => Err(other.misfit()),
        }
    }

    /// The lease that was granted.
    pub(crate) fn granted(self) -> Result<LeaseId, Error> {
        match self {
            Self::Granted(lease) => Ok(lease),
            other => Err(other.misfit()),
        }
    }

    fn misfit(self) -> Error {
        match self {
            Self::Refused(error) => error,
            other => Error::Unknown(format!("unexpected answer {other:?}")),
        }
    }
}

/// One state of one key. Without a value it is the mark of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    revision: Revision,
    /// The place within the revision, so that the order of events survives a snapshot.
    sub: u32,
    create_revision: Revision,
    lease: LeaseId,
    value: Option<Bytes>,
}

/// A lease as every member knows it; when it ends is the leader's business ([`Lessor`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lease {
    ttl_seconds: i64,
    keys: BTreeSet<Bytes>,
}

/// Everything the store knows at its current revision and, back to the compacted one, at every revision before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    revision: Revision,
    /// The oldest revision that can be read. Changes after it can be watched.
    compacted: Revision,
    /// Per key its versions in order; never empty.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// One element for each revision after `compacted`.
    history: VecDeque<Arc<Batch>>,
    history_bytes: usize,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: LeaseId,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: EMPTY_REVISION,
            compacted: 0,
            keys: BTreeMap::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            leases: BTreeMap::new(),
            last_lease: 0,
        }
    }
}

impl State {
    /// The current revision.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can still be read.
    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// What the readable past costs in memory, about.
    pub(crate) fn history_bytes(&self) -> usize {
        self.history_bytes
    }

    /// The revision to compact to so that about `bytes` of history are freed.
    pub(crate) fn revision_to_free(&self, bytes: usize) -> Option<Revision> {
        let mut freed = 0;
        let enough = |batch: &&Arc<Batch>| {
            freed += cost(batch);
            freed >= bytes
        };
        self.history.iter().find(enough).or(self.history.back()).map(|batch| batch.revision)
    }

    /// Every lease with its time to live.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (LeaseId, i64)> + '_ {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl_seconds))
    }

    /// The time to live of a lease.
    pub(crate) fn lease_ttl(&self, lease: LeaseId) -> Option<i64> {
        self.leases.get(&lease).map(|l| l.ttl_seconds)
    }

    /// Applies a command. The same commands in the same order give the same state everywhere.
    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        match command {
            Command::Txn(txn) => match self.commit(txn) {
                Ok(commit) => Applied::Commit(commit),
                Err(error) => Applied::Refused(error),
            },
            Command::LeaseGrant { ttl_seconds } => {
                self.last_lease += 1;
                self.leases.insert(self.last_lease, Lease { ttl_seconds, keys: BTreeSet::new() });
                Applied::Granted(self.last_lease)
            }
            Command::LeaseRevoke { lease } => self.revoke(lease),
            Command::Compact { revision } => match self.compact(revision) {
                Ok(()) => Applied::Done,
                Err(error) => Applied::Refused(error),
            },
        }
    }

    fn commit(&mut self, txn: Txn) -> Result<Commit, Error> {
        let holds = |c: &crate::Compare| self.current(&c.key).map_or(0, |v| v.revision) == c.mod_revision;
        if !txn.compare.iter().all(holds) {
            let found = txn.compare.iter().map(|c| self.get(&c.key)).collect();
            return Ok(Commit::Conflict(self.revision, found));
        }
        for op in &txn.ops {
            if let Op::Put { lease, .. } = op
                && *lease != 0
                && !self.leases.contains_key(lease)
            {
                return Err(Error::LeaseNotFound(*lease));
            }
        }
        self.write(txn.ops);
        Ok(Commit::Done(self.revision))
    }

    /// Makes the changes as one new revision; without any it stays at the current one.
    fn write(&mut self, ops: Vec<Op>) {
        let revision = self.revision + 1;
        let mut events = Vec::with_capacity(ops.len());
        for op in ops {
            let sub = events.len() as u32;
            events.extend(match op {
                Op::Put { key, value, lease } => Some(self.put(key, value, lease, revision, sub)),
                Op::Delete { key } => self.delete(key, revision, sub),
            });
        }
        if !events.is_empty() {
            self.revision = revision;
            self.remember(Batch { revision, events });
        }
    }

    fn put(&mut self, key: Bytes, value: Bytes, lease: LeaseId, revision: Revision, sub: u32) -> Event {
        let previous = self.get(&key);
        let create_revision = previous.as_ref().map_or(revision, |p| p.create_revision);
        self.detach(&key, previous.as_ref());
        if let Some(l) = self.leases.get_mut(&lease) {
            l.keys.insert(key.clone());
        }
        let version = Version { revision, sub, create_revision, lease, value: Some(value.clone()) };
        self.keys.entry(key.clone()).or_default().push(version);
        Event::Put { entry: Entry { key, value, create_revision, mod_revision: revision, lease }, previous }
    }

    fn delete(&mut self, key: Bytes, revision: Revision, sub: u32) -> Option<Event> {
        let previous = self.get(&key)?;
        self.detach(&key, Some(&previous));
        let version = Version { revision, sub, create_revision: 0, lease: 0, value: None };
        self.keys.entry(key.clone()).or_default().push(version);
        Some(Event::Delete { key, revision, previous: Some(previous) })
    }

    fn detach(&mut self, key: &Bytes, previous: Option<&Entry>) {
        if let Some(lease) = previous.and_then(|p| self.leases.get_mut(&p.lease)) {
            lease.keys.remove(key);
        }
    }

    fn revoke(&mut self, lease: LeaseId) -> Applied {
        let Some(ended) = self.leases.remove(&lease) else {
            return Applied::Refused(Error::LeaseNotFound(lease));
        };
        self.write(ended.keys.into_iter().map(|key| Op::Delete { key }).collect());
        Applied::Done
    }

    fn remember(&mut self, batch: Batch) {
        self.history_bytes += cost(&batch);
        self.history.push_back(Arc::new(batch));
    }

    /// Forgets what only revisions before `revision` need; that revision itself stays readable.
    fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted(self.compacted));
        }
        if revision > self.revision {
            return Err(Error::FutureRevision(revision));
        }
        while let Some(batch) = self.history.pop_front_if(|b| b.revision <= revision) {
            self.history_bytes -= cost(&batch);
            for event in &batch.events {
                self.trim(event.key(), revision);
            }
        }
        self.compacted = revision;
        Ok(())
    }

    fn trim(&mut self, key: &Bytes, revision: Revision) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let after = versions.partition_point(|v| v.revision <= revision);
        let Some(base) = after.checked_sub(1) else { return };
        let deleted = versions.get(base).is_some_and(|v| v.value.is_none());
        versions.drain(..if deleted { after } else { base });
        versions.shrink_to_fit();
        if versions.is_empty() {
            self.keys.remove(key);
        }
    }

    fn current(&self, key: &Bytes) -> Option<&Version> {
        self.keys.get(key).and_then(|versions| versions.last()).filter(|v| v.value.is_some())
    }

    /// What stands at a key now.
    pub(crate) fn get(&self, key: &Bytes) -> Option<Entry> {
        self.current(key).and_then(|version| version.entry(key))
    }

    /// Reads a range at one revision (0: the current one).
    pub(crate) fn range(&self, range: &Range) -> Result<Page, Error> {
        let revision = self.readable(range.revision)?;
        let count = self.live(range, revision).count();
        let entries = if range.count_only { Vec::new() } else { self.entries(range)? };
        Ok(Page { entries, revision, count })
    }

    /// The first entries of a range, at most its limit.
    pub(crate) fn entries(&self, range: &Range) -> Result<Vec<Entry>, Error> {
        let revision = self.readable(range.revision)?;
        let room = if range.limit == 0 { usize::MAX } else { range.limit };
        Ok(self.live(range, revision).filter_map(|(key, version)| version.entry(key)).take(room).collect())
    }

    fn live(&self, range: &Range, revision: Revision) -> impl Iterator<Item = (&Bytes, &Version)> {
        let start = range.start.clone();
        let end = range.end.clone().max(start.clone());
        self.keys.range(start..end).filter_map(move |(key, versions)| Some((key, at(versions, revision)?)))
    }

    fn readable(&self, revision: Revision) -> Result<Revision, Error> {
        match revision {
            0 => Ok(self.revision),
            r if r > self.revision => Err(Error::FutureRevision(r)),
            r if r < self.compacted => Err(Error::Compacted(self.compacted)),
            r => Ok(r),
        }
    }

    /// The changes from revision `next` on, whole revisions, until about `limit` events are together.
    pub(crate) fn changes(&self, next: Revision, limit: usize) -> Result<impl Iterator<Item = &Arc<Batch>>, Error> {
        if next <= self.compacted {
            return Err(Error::Compacted(self.compacted));
        }
        let first = self.history.front().map_or(self.revision + 1, |b| b.revision);
        let skip = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut taken = 0;
        Ok(self.history.range(skip.min(self.history.len())..).take_while(move |batch| {
            let go_on = taken < limit;
            taken += batch.events.len();
            go_on
        }))
    }
}

/// The version that a reader at `revision` sees.
fn at(versions: &[Version], revision: Revision) -> Option<&Version> {
    let after = match versions.last() {
        Some(last) if last.revision <= revision => versions.len(),
        _ => versions.partition_point(|v| v.revision <= revision),
    };
    after.checked_sub(1).and_then(|i| versions.get(i)).filter(|v| v.value.is_some())
}

fn cost(batch: &Batch) -> usize {
    let bytes = |e: &Event| match e {
        Event::Put { previous, .. } | Event::Delete { previous, .. } => previous.as_ref().map_or(0, |p| p.value.len()),
    };
    batch.events.iter().map(|e| CHANGE_OVERHEAD_BYTES + e.key().len() + bytes(e)).sum()
}

impl Version {
    fn entry(&self, key: &Bytes) -> Option<Entry> {
        Some(Entry {
            key: key.clone(),
            value: self.value.clone()?,
            create_revision: self.create_revision,
            mod_revision: self.revision,
            lease: self.lease,
        })
    }
}
