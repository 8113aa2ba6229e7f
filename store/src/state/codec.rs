//! Commands and states as bytes: what log records and snapshots carry. Integers are little-endian, byte strings have
//! their length in front. Decoded keys and values are slices of what they were decoded from.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::{Command, Lease, State, Version, cost};
use crate::{Batch, Compare, Entry, Event, LeaseId, Op, Revision, Txn};

const TXN: u8 = 1;
const LEASE_GRANT: u8 = 2;
const LEASE_REVOKE: u8 = 3;
const COMPACT: u8 = 4;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// What is wrong with bytes that should have been a command or a state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Self {
        Self("it ends too early")
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn get_bytes(from: &mut Bytes) -> Result<Bytes, Malformed> {
    let len = from.try_get_u32_le()? as usize;
    if len > from.len() {
        return Err(Malformed("it ends too early"));
    }
    Ok(from.split_to(len))
}

impl Command {
    /// The command as the log keeps it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Txn(txn) => encode_txn(txn, &mut out),
            Self::LeaseGrant { ttl_seconds } => {
                out.put_u8(LEASE_GRANT);
                out.put_i64_le(*ttl_seconds);
            }
            Self::LeaseRevoke { lease } => {
                out.put_u8(LEASE_REVOKE);
                out.put_i64_le(*lease);
            }
            Self::Compact { revision } => {
                out.put_u8(COMPACT);
                out.put_u64_le(*revision);
            }
        }
        out
    }

    /// The command that was encoded as `from`.
    pub(crate) fn decode(mut from: Bytes) -> Result<Self, Malformed> {
        let command = match from.try_get_u8()? {
            TXN => Self::Txn(decode_txn(&mut from)?),
            LEASE_GRANT => Self::LeaseGrant { ttl_seconds: from.try_get_i64_le()? },
            LEASE_REVOKE => Self::LeaseRevoke { lease: from.try_get_i64_le()? },
            COMPACT => Self::Compact { revision: from.try_get_u64_le()? },
            _ => return Err(Malformed("unknown command")),
        };
        if from.is_empty() { Ok(command) } else { Err(Malformed("bytes after the command")) }
    }
}

fn encode_txn(txn: &Txn, out: &mut Vec<u8>) {
    out.put_u8(TXN);
    out.put_u32_le(txn.compare.len() as u32);
    for compare in &txn.compare {
        put_bytes(out, &compare.key);
        out.put_u64_le(compare.mod_revision);
    }
    out.put_u32_le(txn.ops.len() as u32);
    for op in &txn.ops {
        match op {
            Op::Put { key, value, lease } => {
                out.put_u8(PUT);
                put_bytes(out, key);
                out.put_i64_le(*lease);
                put_bytes(out, value);
            }
            Op::Delete { key } => {
                out.put_u8(DELETE);
                put_bytes(out, key);
            }
        }
    }
}

fn decode_txn(from: &mut Bytes) -> Result<Txn, Malformed> {
    let mut txn = Txn::default();
    for _ in 0..from.try_get_u32_le()? {
        txn.compare.push(Compare { key: get_bytes(from)?, mod_revision: from.try_get_u64_le()? });
    }
    for _ in 0..from.try_get_u32_le()? {
        txn.ops.push(match from.try_get_u8()? {
            PUT => {
                let key = get_bytes(from)?;
                let lease = from.try_get_i64_le()?;
                Op::Put { key, value: get_bytes(from)?, lease }
            }
            DELETE => Op::Delete { key: get_bytes(from)? },
            _ => return Err(Malformed("unknown operation")),
        });
    }
    Ok(txn)
}

/// The small part of a state: everything but the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    last_lease: LeaseId,
    leases: Vec<(LeaseId, i64)>,
}

impl Head {
    /// The head as a snapshot keeps it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64_le(self.revision);
        out.put_u64_le(self.compacted);
        out.put_i64_le(self.last_lease);
        out.put_u32_le(self.leases.len() as u32);
        for (lease, ttl_seconds) in &self.leases {
            out.put_i64_le(*lease);
            out.put_i64_le(*ttl_seconds);
        }
        out
    }

    /// The head that was encoded as `from`.
    pub(crate) fn decode(from: &mut Bytes) -> Result<Self, Malformed> {
        let revision = from.try_get_u64_le()?;
        let compacted = from.try_get_u64_le()?;
        let last_lease = from.try_get_i64_le()?;
        let mut leases = Vec::new();
        for _ in 0..from.try_get_u32_le()? {
            leases.push((from.try_get_i64_le()?, from.try_get_i64_le()?));
        }
        Ok(Self { revision, compacted, last_lease, leases })
    }
}

impl State {
    /// The state without its keys.
    pub(crate) fn head(&self) -> Head {
        let leases = self.leases().collect();
        Head { revision: self.revision, compacted: self.compacted, last_lease: self.last_lease, leases }
    }

    /// Some keys after `after` with their versions up to `revision`, about `room` bytes of them, and the last key;
    /// nothing when there are no more.
    pub(crate) fn encode_keys(&self, after: &Bytes, revision: Revision, room: usize) -> Option<(Vec<u8>, Bytes)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut out = Vec::new();
        let mut last = None;
        for (key, versions) in self.keys.range::<Bytes, _>((Excluded(after), Unbounded)) {
            let readable = versions.partition_point(|v| v.revision <= revision);
            encode_versions(key, versions.get(..readable).unwrap_or_default(), &mut out);
            last = Some(key.clone());
            if out.len() >= room {
                break;
            }
        }
        last.map(|key| (out, key))
    }
}

fn encode_versions(key: &Bytes, versions: &[Version], out: &mut Vec<u8>) {
    if versions.is_empty() {
        return;
    }
    put_bytes(out, key);
    out.put_u32_le(versions.len() as u32);
    for version in versions {
        out.put_u64_le(version.revision);
        out.put_u32_le(version.sub);
        out.put_u64_le(version.create_revision);
        out.put_i64_le(version.lease);
        out.put_u8(u8::from(version.value.is_some()));
        if let Some(value) = &version.value {
            put_bytes(out, value);
        }
    }
}

/// Puts a state together again from its parts.
pub(crate) struct Loader {
    head: Head,
    keys: BTreeMap<Bytes, Vec<Version>>,
}

impl Loader {
    /// Starts with the head; the parts with keys follow.
    pub(crate) fn new(head: Head) -> Self {
        Self { head, keys: BTreeMap::new() }
    }

    /// Takes in what `encode_keys` gave out.
    pub(crate) fn keys(&mut self, mut from: Bytes) -> Result<(), Malformed> {
        while !from.is_empty() {
            // A copy each: a slice would keep the whole part in memory as long as one of its values lives.
            let key = Bytes::copy_from_slice(&get_bytes(&mut from)?);
            let mut versions = Vec::new();
            for _ in 0..from.try_get_u32_le()? {
                versions.push(decode_version(&mut from)?);
            }
            self.keys.insert(key, versions);
        }
        Ok(())
    }

    /// The whole state.
    pub(crate) fn finish(self) -> Result<State, Malformed> {
        let mut state = State { keys: self.keys, last_lease: self.head.last_lease, ..State::default() };
        state.compacted = self.head.compacted;
        state.revision = self.head.revision;
        for (lease, ttl_seconds) in self.head.leases {
            state.leases.insert(lease, Lease { ttl_seconds, ..Lease::default() });
        }
        attach(&mut state);
        recall(&mut state)?;
        Ok(state)
    }
}

fn decode_version(from: &mut Bytes) -> Result<Version, Malformed> {
    let revision = from.try_get_u64_le()?;
    let sub = from.try_get_u32_le()?;
    let create_revision = from.try_get_u64_le()?;
    let lease = from.try_get_i64_le()?;
    let value = match from.try_get_u8()? {
        0 => None,
        _ => Some(Bytes::copy_from_slice(&get_bytes(from)?)),
    };
    Ok(Version { revision, sub, create_revision, lease, value })
}

/// Gives every lease its keys.
fn attach(state: &mut State) {
    let State { keys, leases, .. } = state;
    for (key, versions) in keys.iter() {
        let held = versions.last().filter(|v| v.value.is_some()).and_then(|v| leases.get_mut(&v.lease));
        if let Some(lease) = held {
            lease.keys.insert(key.clone());
        }
    }
}

/// Makes the history from the versions.
fn recall(state: &mut State) -> Result<(), Malformed> {
    let mut changes: BTreeMap<(Revision, u32), Event> = BTreeMap::new();
    for (key, versions) in &state.keys {
        let mut previous: Option<Entry> = None;
        for version in versions {
            let entry = version.entry(key);
            let before = std::mem::replace(&mut previous, entry.clone());
            if version.revision > state.compacted {
                let revision = version.revision;
                let event = match entry {
                    Some(entry) => Event::Put { entry, previous: before },
                    None => Event::Delete { key: key.clone(), revision, previous: before },
                };
                changes.insert((revision, version.sub), event);
            }
        }
    }
    let mut batches: BTreeMap<Revision, Vec<Event>> = BTreeMap::new();
    for ((revision, _), event) in changes {
        batches.entry(revision).or_default().push(event);
    }
    let first = state.compacted.max(super::EMPTY_REVISION) + 1;
    if !batches.keys().copied().eq(first..=state.revision) {
        return Err(Malformed("its history has a gap"));
    }
    for (revision, events) in batches {
        let batch = Batch { revision, events };
        state.history_bytes += cost(&batch);
        state.history.push_back(Arc::new(batch));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Command> {
        let put =
            |key: &'static str, value: &'static str, lease| Op::Put { key: key.into(), value: value.into(), lease };
        let txn = |ops| Command::Txn(Txn { compare: vec![], ops });
        let compare = vec![Compare { key: "/a".into(), mod_revision: 2 }];
        vec![
            Command::LeaseGrant { ttl_seconds: 60 },
            txn(vec![put("/b", "1", 1), put("/a", "1", 0)]),
            Command::Txn(Txn { compare, ops: vec![put("/a", "2", 0), Op::Delete { key: "/b".into() }] }),
            txn(vec![put("/c", "", 1)]),
            txn(vec![put("/b", "again", 0), put("/a", "3", 0)]),
            Command::Compact { revision: 3 },
            Command::LeaseRevoke { lease: 9 },
            txn(vec![Op::Delete { key: "/a".into() }]),
        ]
    }

    #[test]
    fn commands_round_trip() {
        for command in sample() {
            let bytes = command.encode();
            for cut in 0..bytes.len() {
                assert!(Command::decode(Bytes::copy_from_slice(&bytes[..cut])).is_err());
            }
            assert_eq!(Command::decode(bytes.into()), Ok(command));
        }
    }

    #[test]
    fn a_state_round_trips_at_every_step() {
        let mut state = State::default();
        for command in sample() {
            state.apply(command);
            let mut loader = Loader::new(Head::decode(&mut state.head().encode().into()).unwrap());
            let mut after = Bytes::new();
            while let Some((bytes, last)) = state.encode_keys(&after, state.revision(), 1) {
                loader.keys(bytes.into()).unwrap();
                after = last;
            }
            assert_eq!(loader.finish().unwrap(), state);
        }
    }
}
