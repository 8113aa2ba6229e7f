//! An ordered map from key to bytes with one revision counter, transactions and watch.
//!
//! One trait, three homes: [`memory`], [`etcd`], [`embedded`]. The store knows bytes, never Kubernetes.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub mod embedded;
pub mod etcd;
pub mod memory;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod served;
mod state;
pub mod transform;

pub use served::MAX_TXN_BYTES;

/// A point in the store's history: every committed transaction has its own, one higher than the last.
pub type Revision = u64;

/// Identifies a lease; 0 is none.
pub type LeaseId = i64;

/// A key with its current (or once current) value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Entry {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub lease: LeaseId,
}

/// What must hold for a transaction to commit: the key's `mod_revision` is this; 0 means the key is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Compare {
    pub key: Bytes,
    pub mod_revision: Revision,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Put { key: Bytes, value: Bytes, lease: LeaseId },
    Delete { key: Bytes },
}

/// All of `ops` or none, if all of `compare` hold. No key stands twice in `ops`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub ops: Vec<Op>,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Committed as this revision (the current one where nothing changed).
    Done(Revision),
    /// A comparison failed: the store's revision, and for each `compare` what stands at its key.
    Conflict(Revision, Vec<Option<Entry>>),
}

/// Keys from `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Range {
    pub start: Bytes,
    pub end: Bytes,
    /// At most that many entries; 0 is no limit.
    pub limit: usize,
    /// As of this revision; 0 is the latest (linearizable).
    pub revision: Revision,
    /// Only `Page::count`, no entries.
    pub count_only: bool,
}

impl Range {
    /// All keys that begin with `prefix`, as of now.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self { start, end, limit: 0, revision: 0, count_only: false }
    }

    /// One key, as of now.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let end = [start.as_ref(), &[0]].concat().into();
        Self { start, end, limit: 0, revision: 0, count_only: false }
    }
}

/// The first key after all that begin with `prefix`. The prefix must not be all `0xff`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end.into()
}

/// A part of a range, consistent at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In key order.
    pub entries: Vec<Entry>,
    /// The revision the page was read at.
    pub revision: Revision,
    /// How many keys the whole range has, also beyond the limit.
    pub count: usize,
}

/// A change as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    Put {
        entry: Entry,
        previous: Option<Entry>,
    },
    /// `key` was deleted at `revision`. `previous` is missing only where it was compacted away.
    Delete {
        key: Bytes,
        revision: Revision,
        previous: Option<Entry>,
    },
}

/// What a watch delivers: all events of one or more whole revisions, in order; never part of a revision.
/// Without events it is progress: everything up to `revision` was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Batch {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// Batches in the order of revisions. It ends with an error (compacted, lagging, store gone) or never.
pub type Watch = BoxStream<'static, Result<Batch, Error>>;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The revision was compacted; the oldest that can be read is given.
    #[error("revision compacted; the oldest readable one is {0}")]
    Compacted(Revision),
    /// The revision lies in the future.
    #[error("revision {0} is in the future")]
    FutureRevision(Revision),
    /// The lease is unknown or expired.
    #[error("lease {0} not found")]
    LeaseNotFound(LeaseId),
    /// A key or value is too large; its size and the limit, in bytes.
    #[error("request of {0} bytes exceeds the limit of {1}")]
    TooLarge(usize, usize),
    /// The request makes no sense, such as one key twice in a transaction.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The disk is full: writes are refused, reads and deletes go on.
    #[error("no space left: writes are refused until space is freed")]
    NoSpace,
    /// The watcher fell behind its buffer; watch again from the last revision seen.
    #[error("watcher too slow")]
    Lagging,
    /// The outcome of a commit is unknown: it may or may not have happened.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The store cannot be reached or is closing.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// What was read from disk is damaged; the file, the offset and what to do.
    #[error("{0}")]
    Corrupt(String),
}

/// The store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits a transaction; when it returns `Done`, it is durable.
    async fn commit(&self, txn: Txn) -> Result<Commit, Error>;

    /// Reads a range at one revision.
    async fn range(&self, range: Range) -> Result<Page, Error>;

    /// The current revision, linearizable: not older than any commit that returned before the call.
    async fn revision(&self) -> Result<Revision, Error>;

    /// Every change under `prefix` with a revision of at least `from` (0: from the next one on).
    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Watch, Error>;

    /// Asks every watch to deliver progress up to the current revision soon.
    async fn progress(&self) -> Result<(), Error>;

    /// Forgets history below `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// A lease that ends `ttl_seconds` after it was granted or last kept alive; its keys are then deleted.
    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, Error>;

    /// Makes a lease live on for its whole time to live.
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), Error>;

    /// Ends a lease and deletes its keys.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error>;
}
