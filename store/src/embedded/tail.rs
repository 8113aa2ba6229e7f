//! The entries that raft may still ask for, in memory: those since the last snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::snapshot::{Meta, Writer};
use crate::served::Served;

/// What raft reads. `Member` keeps it equal to what is durable.
pub(crate) struct Tail {
    pub(crate) hard_state: HardState,
    pub(crate) conf: ConfState,
    /// The index and term of the entry before the first one here.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    /// Up to where entries were applied to what is served, and the term there.
    pub(crate) applied: (u64, u64),
    pub(crate) served: Arc<Served>,
    pub(crate) cluster: u64,
    pub(crate) member: u64,
}

impl Tail {
    pub(crate) fn new(meta: &Meta, served: Arc<Served>, hard_state: HardState, entries: Vec<Entry>) -> Self {
        let base = (meta.index, meta.term);
        Self {
            hard_state,
            conf: meta.conf.clone(),
            base,
            entries: entries.into(),
            applied: base,
            served,
            cluster: meta.cluster,
            member: meta.member,
        }
    }

    /// The description of a snapshot of what is served now.
    pub(crate) fn meta(&self) -> Meta {
        let (index, term) = self.applied;
        let (cluster, member, conf) = (self.cluster, self.member, self.conf.clone());
        Meta { cluster, member, index, term, conf, installed: false }
    }

    /// Adds entries; they replace those with their indexes and higher ones.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            self.entries.truncate(first.index.saturating_sub(self.base.0 + 1) as usize);
        }
        self.entries.extend(entries);
    }

    /// Forgets entries up to `index`, whose term is given.
    pub(crate) fn release(&mut self, index: u64, term: u64) {
        while self.entries.pop_front_if(|e| e.index <= index).is_some() {}
        if index > self.base.0 {
            self.base = (index, term);
        }
    }

    /// Forgets everything: a snapshot took its place.
    pub(crate) fn reset(&mut self, meta: &Meta) {
        self.entries.clear();
        self.base = (meta.index, meta.term);
        self.applied = self.base;
        self.conf = meta.conf.clone();
        self.hard_state.commit = self.hard_state.commit.max(meta.index);
        self.hard_state.term = self.hard_state.term.max(meta.term);
    }

    fn position(&self, index: u64) -> Option<usize> {
        index.checked_sub(self.base.0 + 1).and_then(|i| usize::try_from(i).ok())
    }
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let (Some(low), Some(high)) = (self.position(low), self.position(high)) else {
            return Err(StorageError::Compacted.into());
        };
        if high > self.entries.len() {
            return Err(StorageError::Unavailable.into());
        }
        let mut entries = self.entries.range(low..high.max(low)).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        let position = self.position(index).ok_or(StorageError::Compacted)?;
        Ok(self.entries.get(position).ok_or(StorageError::Unavailable)?.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + self.entries.len() as u64)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let meta = self.meta();
        if meta.index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let about = snapshot.mut_metadata();
        (about.index, about.term) = (meta.index, meta.term);
        about.set_conf_state(meta.conf.clone());
        let bytes = Writer::new(self.served.clone(), meta).whole();
        snapshot.data = bytes.map_err(|_| StorageError::SnapshotTemporarilyUnavailable)?.into();
        Ok(snapshot)
    }
}
