//! A state machine that is read and watched by many: what `memory` and `embedded` have in common.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::state::{Applied, Command, State};
use crate::{Batch, Entry, Error, Event, Op, Page, Range, Revision, Txn, Watch};

/// A transaction's keys and values together may have this many bytes (etcd's default request limit).
pub const MAX_TXN_BYTES: usize = 1536 * 1024;

/// A watch hands out about this many events at once when it has to catch up.
const CATCH_UP_EVENTS: usize = 1024;

/// So many entries are copied before a range lets writers in again.
const RANGE_STEP: usize = 4096;

/// What watchers wait for.
#[derive(Clone, Copy, Debug, Default)]
struct Tick {
    revision: Revision,
    /// Counts the requests for progress.
    progress: u64,
}

/// The state behind a lock, and the bell that tells watchers to look again.
pub(crate) struct Served {
    state: Arc<RwLock<State>>,
    tick: watch::Sender<Tick>,
}

impl Served {
    pub(crate) fn new(state: State) -> Self {
        let tick = Tick { revision: state.revision(), progress: 0 };
        Self { state: Arc::new(RwLock::new(state)), tick: watch::Sender::new(tick) }
    }

    /// Applies commands in order and then rings the bell once.
    pub(crate) fn apply(&self, commands: impl IntoIterator<Item = Command>) -> Vec<Applied> {
        let mut state = self.state.write();
        let applied = commands.into_iter().map(|command| state.apply(command)).collect();
        let revision = state.revision();
        drop(state);
        self.tick.send_if_modified(|tick| {
            let changed = tick.revision != revision;
            tick.revision = revision;
            changed
        });
        applied
    }

    /// Reads something of the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read())
    }

    /// Puts another state in place of this one (a snapshot came from the leader).
    pub(crate) fn replace(&self, state: State) {
        let revision = state.revision();
        *self.state.write() = state;
        self.tick.send_modify(|tick| tick.revision = revision);
    }

    /// Reads a range; a long one in steps at one revision, so that writers need not wait for its end.
    pub(crate) fn range(&self, range: &Range) -> Result<Page, Error> {
        if range.count_only {
            return self.read(|state| state.range(range));
        }
        let (count, revision) = self.read(|s| s.range(&Range { count_only: true, ..range.clone() }))?.parts();
        let wanted = if range.limit == 0 { count } else { range.limit.min(count) };
        let mut entries: Vec<Entry> = Vec::with_capacity(wanted);
        let mut step = Range { revision, ..range.clone() };
        while entries.len() < wanted {
            step.limit = RANGE_STEP.min(wanted - entries.len());
            let part = self.read(|state| state.entries(&step))?;
            let Some(last) = part.last() else { break };
            step.start = [last.key.as_ref(), &[0]].concat().into();
            entries.extend(part);
        }
        Ok(Page { entries, revision, count })
    }

    /// Starts a watch. It is a cursor in the history, not a queue: slow watchers cost nothing until what they have
    /// not read yet is compacted, which ends them.
    pub(crate) fn watch(&self, prefix: Bytes, from: Revision) -> Result<Watch, Error> {
        let (next, compacted) = self.read(|s| (if from == 0 { s.revision() + 1 } else { from }, s.compacted()));
        if next <= compacted {
            return Err(Error::Compacted(compacted));
        }
        let mut bell = self.tick.subscribe();
        let progress = bell.borrow_and_update().progress;
        bell.mark_changed();
        let cursor = Cursor { state: self.state.clone(), bell, prefix, next, progress, ended: false };
        Ok(stream::unfold(cursor, Cursor::step).boxed())
    }

    /// Lets every watch deliver progress.
    pub(crate) fn progress(&self) {
        self.tick.send_modify(|tick| tick.progress += 1);
    }
}

/// One watcher's place in the history.
struct Cursor {
    state: Arc<RwLock<State>>,
    bell: watch::Receiver<Tick>,
    prefix: Bytes,
    next: Revision,
    progress: u64,
    ended: bool,
}

impl Cursor {
    async fn step(mut self) -> Option<(Result<Batch, Error>, Self)> {
        while !self.ended {
            match self.look() {
                Ok(Some(batch)) => return Some((Ok(batch), self)),
                Ok(None) => {}
                Err(error) => return Some((Err(error), Self { ended: true, ..self })),
            }
            if self.bell.changed().await.is_err() {
                let closed = Error::Unavailable("the store was closed".to_owned());
                return Some((Err(closed), Self { ended: true, ..self }));
            }
        }
        None
    }

    /// The next batch, if there is something to deliver.
    fn look(&mut self) -> Result<Option<Batch>, Error> {
        let asked = self.bell.borrow_and_update().progress;
        let state = self.state.read();
        let mut events = Vec::new();
        let mut seen = None;
        while events.is_empty() {
            let mut moved = false;
            for batch in state.changes(self.next, CATCH_UP_EVENTS)? {
                events.extend(batch.events.iter().filter(|e| e.key().starts_with(&self.prefix)).cloned());
                (seen, moved) = (Some(batch.revision), true);
                self.next = batch.revision + 1;
            }
            if !moved {
                break;
            }
        }
        let current = state.revision();
        if let (Some(revision), false) = (seen, events.is_empty()) {
            return Ok(Some(Batch { revision, events }));
        }
        if asked != self.progress && self.next == current + 1 {
            self.progress = asked;
            return Ok(Some(Batch { revision: current, events }));
        }
        Ok(None)
    }
}

/// Refuses what no home may accept: too many bytes, or one key twice.
pub(crate) fn check(txn: &Txn) -> Result<(), Error> {
    let size: usize = txn.ops.iter().map(Op::size).sum();
    if size > MAX_TXN_BYTES {
        return Err(Error::TooLarge(size, MAX_TXN_BYTES));
    }
    let mut keys: Vec<&Bytes> = txn.ops.iter().map(Op::key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(_) => Err(Error::Invalid("a key stands twice in the transaction".to_owned())),
        None => Ok(()),
    }
}

impl Page {
    fn parts(self) -> (usize, Revision) {
        (self.count, self.revision)
    }
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { entry, .. } => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { entry, .. } => entry.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

impl Op {
    /// The key that changes.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}
