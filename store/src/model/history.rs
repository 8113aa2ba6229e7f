//! What has happened according to the members, and whether it can have: the checker of linearizability.
//!
//! Every write has a revision, and revisions are a total order. So it is enough that each revision is what some client
//! asked for and no other revision is, that all members tell the same, that every answer fits the order (a write its
//! revision, a failed compare and a read the revision they saw), and that the order fits real time: what was asked after
//! something was answered comes after it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::embedded::Ticket;
use crate::{Entry, Event, LeaseId, Op, Page, Revision, Txn};

/// The revision of a store in which nothing was ever written.
const EMPTY: Revision = 1;

/// What is known of a transaction's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It may be committed, once.
    Open,
    Committed(Revision),
    /// It must never be committed.
    Refused,
}

struct Proposal {
    txn: Txn,
    /// The highest revision that anyone had been told when it was asked for.
    floor: Revision,
    fate: Fate,
}

/// All revisions, and all that was asked for.
#[derive(Default)]
pub(super) struct History {
    /// The events of each revision, from the first after [`EMPTY`] on.
    revisions: Vec<Vec<Event>>,
    /// Every state of every key.
    keys: BTreeMap<Bytes, Vec<(Revision, Option<Entry>)>>,
    proposals: BTreeMap<Ticket, Proposal>,
    /// When leases that hold keys were asked for and how long they live.
    leases: BTreeMap<LeaseId, (Duration, Duration)>,
    told: Revision,
}

/// The ticket stands at the beginning of every value.
pub(super) fn value(ticket: Ticket, filling: usize) -> Bytes {
    format!("{ticket}|{}", "x".repeat(filling)).into()
}

fn author(events: &[Event]) -> Option<Ticket> {
    let value = events.iter().find_map(|event| match event {
        Event::Put { entry, .. } => Some(&entry.value),
        Event::Delete { .. } => None,
    })?;
    std::str::from_utf8(value).ok()?.split_once('|')?.0.parse().ok()
}

impl History {
    /// The highest revision that any member has told of.
    pub(super) fn last(&self) -> Revision {
        EMPTY + self.revisions.len() as Revision
    }

    /// The highest revision that anyone was told in an answer: what is asked from now on must see it.
    pub(super) fn told(&self) -> Revision {
        self.told
    }

    /// A transaction is asked for.
    pub(super) fn asked(&mut self, ticket: Ticket, txn: Txn) {
        self.proposals.insert(ticket, Proposal { txn, floor: self.told, fate: Fate::Open });
    }

    /// A lease was granted to somebody who asked for it at `asked`; none is granted twice.
    pub(super) fn granted(&mut self, lease: LeaseId, asked: Duration, ttl: Duration) -> Result<(), String> {
        match self.leases.insert(lease, (asked, ttl)) {
            Some(_) => Err(format!("lease {lease} was granted twice")),
            None => Ok(()),
        }
    }

    /// A member tells what happened at a revision. The first that does makes it history; all others must agree.
    pub(super) fn learn(&mut self, revision: Revision, events: &[Event], now: Duration) -> Result<(), String> {
        match self.at(revision) {
            Some(known) if known == events => Ok(()),
            Some(known) => Err(format!("revision {revision} was issued twice: {known:?} and {events:?}")),
            None if revision == self.last() + 1 => self.extend(revision, events, now),
            None => Err(format!("revision {revision} came after {}", self.last())),
        }
    }

    fn at(&self, revision: Revision) -> Option<&[Event]> {
        let at = usize::try_from(revision.checked_sub(EMPTY + 1)?).ok()?;
        self.revisions.get(at).map(Vec::as_slice)
    }

    fn extend(&mut self, revision: Revision, events: &[Event], now: Duration) -> Result<(), String> {
        let expected = match author(events) {
            Some(ticket) => self.written_by(ticket, revision)?,
            None => self.expired(revision, events, now)?,
        };
        if expected != events {
            return Err(format!("revision {revision} is {events:?}, but what was asked for is {expected:?}"));
        }
        for event in events {
            let state = match event {
                Event::Put { entry, .. } => Some(entry.clone()),
                Event::Delete { .. } => None,
            };
            self.keys.entry(event.key().clone()).or_default().push((revision, state));
        }
        self.revisions.push(events.to_vec());
        Ok(())
    }

    /// What this transaction must have done as this revision, if it may be it.
    fn written_by(&mut self, ticket: Ticket, revision: Revision) -> Result<Vec<Event>, String> {
        let Some(proposal) = self.proposals.get_mut(&ticket) else {
            return Err(format!("revision {revision} was invented: nobody asked for {ticket}"));
        };
        let fate = std::mem::replace(&mut proposal.fate, Fate::Committed(revision));
        if fate != Fate::Open {
            return Err(format!("{ticket} was committed as {revision}, but it was {fate:?}"));
        }
        if revision <= proposal.floor {
            let floor = proposal.floor;
            return Err(format!("{ticket} was asked for when {floor} had been told, but has {revision}"));
        }
        let txn = proposal.txn.clone();
        let holds = |c: &crate::Compare| self.mod_revision(&c.key, revision - 1) == c.mod_revision;
        match txn.compare.iter().find(|c| !holds(c)) {
            Some(failed) => Err(format!("{ticket} was committed as {revision} though {failed:?} does not hold")),
            None => Ok(txn.ops.iter().filter_map(|op| self.effect(op, revision)).collect()),
        }
    }

    /// What the end of a lease must have done as this revision, if it may have ended.
    fn expired(&self, revision: Revision, events: &[Event], now: Duration) -> Result<Vec<Event>, String> {
        let key = events.first().map(Event::key).ok_or("a revision without events")?;
        let lease = self.entry_at(key, revision - 1).map_or(0, |entry| entry.lease);
        match self.leases.get(&lease) {
            Some((asked, ttl)) if now >= *asked + *ttl => {}
            other => {
                return Err(format!("revision {revision} deletes {key:?} of lease {lease}, {other:?}, at {now:?}"));
            }
        }
        let held = |key: &&Bytes| self.entry_at(key, revision - 1).is_some_and(|entry| entry.lease == lease);
        let deleted = |key: &Bytes| self.effect(&Op::Delete { key: key.clone() }, revision);
        Ok(self.keys.keys().filter(held).filter_map(deleted).collect())
    }

    fn effect(&self, op: &Op, revision: Revision) -> Option<Event> {
        let previous = self.entry_at(op.key(), revision - 1).cloned();
        match op {
            Op::Put { key, value, lease } => {
                let create_revision = previous.as_ref().map_or(revision, |p| p.create_revision);
                let (key, value, lease) = (key.clone(), value.clone(), *lease);
                Some(Event::Put {
                    entry: Entry { key, value, create_revision, mod_revision: revision, lease },
                    previous,
                })
            }
            Op::Delete { key } => {
                previous.as_ref()?;
                Some(Event::Delete { key: key.clone(), revision, previous })
            }
        }
    }

    fn entry_at(&self, key: &Bytes, revision: Revision) -> Option<&Entry> {
        let states = self.keys.get(key)?;
        let after = states.partition_point(|(at, _)| *at <= revision);
        states.get(after.checked_sub(1)?)?.1.as_ref()
    }

    fn mod_revision(&self, key: &Bytes, revision: Revision) -> Revision {
        self.entry_at(key, revision).map_or(0, |entry| entry.mod_revision)
    }

    /// A transaction was answered with its revision.
    pub(super) fn done(&mut self, ticket: Ticket, revision: Revision) -> Result<(), String> {
        match self.proposals.get(&ticket).map(|p| p.fate) {
            Some(Fate::Committed(at)) if at == revision => {}
            other => return Err(format!("{ticket} was acknowledged as {revision}, but it is {other:?}")),
        }
        self.told = self.told.max(revision);
        Ok(())
    }

    /// A transaction was answered with what stood at its compared keys instead, as of a revision.
    pub(super) fn conflict(&mut self, ticket: Ticket, at: Revision, found: &[Option<Entry>]) -> Result<(), String> {
        let Some(proposal) = self.proposals.get(&ticket) else { return Err(format!("{ticket} is unknown")) };
        let compare = &proposal.txn.compare;
        if at < proposal.floor || at > self.last() {
            return Err(format!("{ticket} failed at {at}, but {} had been told", proposal.floor));
        }
        if compare.iter().all(|c| self.mod_revision(&c.key, at) == c.mod_revision) {
            return Err(format!("{ticket} failed at {at}, but all of {compare:?} holds"));
        }
        if !compare.iter().map(|c| self.entry_at(&c.key, at)).eq(found.iter().map(Option::as_ref)) {
            return Err(format!("{ticket} failed at {at} and found {found:?}, which was not there"));
        }
        self.told = self.told.max(at);
        self.refused(ticket)
    }

    /// A transaction was answered with a refusal: it must never be committed.
    pub(super) fn refused(&mut self, ticket: Ticket) -> Result<(), String> {
        match self.proposals.get_mut(&ticket) {
            Some(proposal) if proposal.fate == Fate::Open => proposal.fate = Fate::Refused,
            Some(proposal) => return Err(format!("{ticket} was refused, but it was {:?}", proposal.fate)),
            None => return Err(format!("{ticket} is unknown")),
        }
        Ok(())
    }

    /// A read that was asked for when `floor` had been told is answered.
    pub(super) fn read(&mut self, floor: Revision, prefix: &[u8], page: &Page) -> Result<(), String> {
        if page.revision < floor {
            return Err(format!("a read saw {}, but {floor} had been told before", page.revision));
        }
        self.shows(prefix, page)?;
        self.told = self.told.max(page.revision);
        Ok(())
    }

    /// A page is what stood under a prefix at its revision.
    pub(super) fn shows(&self, prefix: &[u8], page: &Page) -> Result<(), String> {
        if page.revision > self.last() {
            return Err(format!("a page of {} after {}", page.revision, self.last()));
        }
        let within = self.keys.keys().filter(|key| key.starts_with(prefix));
        let expected: Vec<&Entry> = within.filter_map(|key| self.entry_at(key, page.revision)).collect();
        if !page.entries.iter().eq(expected.iter().copied()) || page.count != expected.len() {
            return Err(format!("at {} there is {expected:?}, not {page:?}", page.revision));
        }
        Ok(())
    }

    /// The events of these revisions under a prefix, in order.
    pub(super) fn events<'a>(
        &'a self,
        revisions: std::ops::RangeInclusive<Revision>,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = &'a Event> {
        revisions.filter_map(|revision| self.at(revision)).flatten().filter(|event| event.key().starts_with(prefix))
    }
}
