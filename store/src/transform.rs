//! What stands between values and their home, such as encryption at rest.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::{Batch, Commit, Entry, Error, Event, LeaseId, Op, Page, Range, Revision, Store, Txn, Watch};

/// Changes values on their way to the home and back. The key is bound to its value, so that values cannot be swapped.
pub trait Transformer: Send + Sync + 'static {
    /// The value as the home keeps it.
    fn seal(&self, key: &Bytes, value: Bytes) -> Result<Bytes, Error>;
    /// The value as it was given; `Corrupt` if the home's cannot be one.
    fn open(&self, key: &Bytes, value: Bytes) -> Result<Bytes, Error>;
}

/// Leaves values as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Transformer for Identity {
    fn seal(&self, _: &Bytes, value: Bytes) -> Result<Bytes, Error> {
        Ok(value)
    }

    fn open(&self, _: &Bytes, value: Bytes) -> Result<Bytes, Error> {
        Ok(value)
    }
}

/// A store whose values are transformed.
#[derive(Clone)]
pub struct Transformed<S> {
    store: S,
    transformer: Arc<dyn Transformer>,
}

impl<S: Store> Transformed<S> {
    /// Puts `transformer` before `store`.
    pub fn new(store: S, transformer: Arc<dyn Transformer>) -> Self {
        Self { store, transformer }
    }
}

fn seal(transformer: &dyn Transformer, op: Op) -> Result<Op, Error> {
    match op {
        Op::Put { key, value, lease } => Ok(Op::Put { value: transformer.seal(&key, value)?, key, lease }),
        delete @ Op::Delete { .. } => Ok(delete),
    }
}

fn open(transformer: &dyn Transformer, entry: Entry) -> Result<Entry, Error> {
    Ok(Entry { value: transformer.open(&entry.key, entry.value)?, ..entry })
}

fn open_event(transformer: &dyn Transformer, event: Event) -> Result<Event, Error> {
    let open_previous = |previous: Option<Entry>| previous.map(|p| open(transformer, p)).transpose();
    Ok(match event {
        Event::Put { entry, previous } => {
            Event::Put { entry: open(transformer, entry)?, previous: open_previous(previous)? }
        }
        Event::Delete { key, revision, previous } => {
            Event::Delete { key, revision, previous: open_previous(previous)? }
        }
    })
}

#[async_trait]
impl<S: Store> Store for Transformed<S> {
    async fn commit(&self, txn: Txn) -> Result<Commit, Error> {
        let transformer = &*self.transformer;
        let ops = txn.ops.into_iter().map(|op| seal(transformer, op)).collect::<Result<_, _>>()?;
        match self.store.commit(Txn { ops, ..txn }).await? {
            Commit::Conflict(revision, found) => {
                let found = found.into_iter().map(|entry| entry.map(|e| open(transformer, e)).transpose());
                Ok(Commit::Conflict(revision, found.collect::<Result<_, _>>()?))
            }
            done @ Commit::Done(_) => Ok(done),
        }
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        let page = self.store.range(range).await?;
        let entries = page.entries.into_iter().map(|e| open(&*self.transformer, e)).collect::<Result<_, _>>()?;
        Ok(Page { entries, ..page })
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.store.revision().await
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Watch, Error> {
        let transformer = self.transformer.clone();
        let open_batch = move |batch: Result<Batch, Error>| {
            let Batch { revision, events } = batch?;
            let events = events.into_iter().map(|e| open_event(&*transformer, e)).collect::<Result<_, _>>()?;
            Ok(Batch { revision, events })
        };
        Ok(self.store.watch(prefix, from).await?.map(open_batch).boxed())
    }

    async fn progress(&self) -> Result<(), Error> {
        self.store.progress().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.store.compact(revision).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, Error> {
        self.store.lease_grant(ttl_seconds).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), Error> {
        self.store.lease_keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.store.lease_revoke(lease).await
    }
}
