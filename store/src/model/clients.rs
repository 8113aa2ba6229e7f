//! Clients that write and read, one request at a time each, at members that they take for the right ones.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::cluster::Cluster;
use super::history::value;
use crate::embedded::{Applied, Command, Ticket};
use crate::{Commit, Compare, Error, LeaseId, Op, Range, Revision, Txn};

/// A client gives up after this long and never learns what became of its request.
const PATIENCE: Duration = Duration::from_secs(3);
const KEYS: u64 = 8;

/// A client.
pub(super) struct Client {
    number: u64,
    waits_for: Option<(Ticket, Duration)>,
    next: Duration,
    /// The revisions of keys as it last saw them.
    seen: BTreeMap<Bytes, Revision>,
    lease: LeaseId,
}

/// A request under way.
pub(super) struct Asked {
    /// Whom it was sent to.
    pub(super) member: u64,
    client: usize,
    what: What,
}

enum What {
    Txn,
    /// A read that must see what had been told when it was asked for.
    Read(Revision),
    Grant(Duration, Duration),
    Compact,
}

impl Client {
    pub(super) fn new(number: u64) -> Self {
        Self { number, waits_for: None, next: Duration::ZERO, seen: BTreeMap::new(), lease: 0 }
    }

    /// The answer to a request will never come.
    pub(super) fn lost(&mut self, ticket: Ticket) {
        self.waits_for.take_if(|(waits_for, _)| *waits_for == ticket);
    }

    /// Whether it asks for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.waits_for.is_none()
    }
}

impl Cluster {
    /// Clients give up, or ask for something.
    pub(super) fn step_clients(&mut self) -> Result<(), String> {
        for at in 0..self.clients.len() {
            let now = self.now;
            let Some(client) = self.clients.get_mut(at) else { continue };
            client.waits_for.take_if(|(_, since)| *since + PATIENCE <= now);
            if client.is_idle() && client.next <= now && now < self.quiet_from {
                client.next = now + self.dice.millis(10, 100);
                self.ask(at)?;
            }
        }
        Ok(())
    }

    /// Mostly a member that says that it leads; now and then any.
    fn writer(&mut self) -> Option<u64> {
        let (leading, running) = (self.leading(), self.running());
        let any = leading.is_empty() || self.dice.once_in(12);
        self.dice.pick(if any { &running } else { &leading })
    }

    fn ask(&mut self, client: usize) -> Result<(), String> {
        match self.dice.below(20) {
            0..8 => self.ask_to_write(client),
            8..11 => self.ask_to_compare(client),
            11..18 => self.ask_to_read(client),
            18 => self.ask_for_lease(client),
            _ => self.ask_to_compact(client),
        }
        Ok(())
    }

    fn sent(&mut self, client: usize, member: u64, what: What) -> Ticket {
        let ticket = self.ticket();
        self.asked.insert(ticket, Asked { member, client, what });
        if let Some(client) = self.clients.get_mut(client) {
            client.waits_for = Some((ticket, self.now));
        }
        ticket
    }

    fn key(&mut self) -> Bytes {
        format!("/k/{}", self.dice.below(KEYS)).into()
    }

    /// One to three keys are put, and perhaps one deleted, whatever is there.
    fn ask_to_write(&mut self, client: usize) {
        let Some(member) = self.writer() else { return };
        let (number, lease) = self.clients.get(client).map_or((0, 0), |c| (c.number, c.lease));
        let ticket = self.sent(client, member, What::Txn);
        let mut puts: BTreeMap<Bytes, LeaseId> = BTreeMap::from([(format!("/t/{number}").into(), 0)]);
        for _ in 0..self.dice.below(3) {
            puts.insert(self.key(), 0);
        }
        if lease != 0 && self.dice.once_in(3) {
            puts.insert(format!("/l/{number}").into(), lease);
        }
        let deleted = Some(self.key()).filter(|key| self.dice.once_in(3) && !puts.contains_key(key));
        let filling = self.dice.below(300) as usize;
        let put = |(key, lease)| Op::Put { key, value: value(ticket, filling), lease };
        let ops = puts.into_iter().map(put).chain(deleted.map(|key| Op::Delete { key })).collect();
        self.propose(member, ticket, Txn { compare: Vec::new(), ops });
    }

    /// A key is put, or deleted, if it still is as it was seen.
    fn ask_to_compare(&mut self, client: usize) {
        let Some(member) = self.writer() else { return };
        let (key, number) = (self.key(), self.clients.get(client).map_or(0, |c| c.number));
        let seen = self.clients.get(client).and_then(|c| c.seen.get(&key)).copied().unwrap_or(0);
        let ticket = self.sent(client, member, What::Txn);
        let mut ops = vec![Op::Put { key: format!("/t/{number}").into(), value: value(ticket, 0), lease: 0 }];
        ops.push(match self.dice.once_in(4) {
            true => Op::Delete { key: key.clone() },
            false => Op::Put { key: key.clone(), value: value(ticket, 20), lease: 0 },
        });
        self.propose(member, ticket, Txn { compare: vec![Compare { key, mod_revision: seen }], ops });
    }

    fn propose(&mut self, member: u64, ticket: Ticket, txn: Txn) {
        self.history.asked(ticket, txn.clone());
        if let Some(member) = self.member(member) {
            member.propose([(ticket, Command::Txn(txn))]);
        }
    }

    fn ask_to_read(&mut self, client: usize) {
        let running = self.running();
        let Some(id) = self.dice.pick(&running) else { return };
        let ticket = self.sent(client, id, What::Read(self.history.told()));
        if let Some(member) = self.member(id) {
            member.barrier(ticket);
        }
    }

    fn ask_for_lease(&mut self, client: usize) {
        let Some(id) = self.writer() else { return };
        let ttl_seconds = 1 + self.dice.below(5) as i64;
        let ticket = self.sent(client, id, What::Grant(self.now, Duration::from_secs(ttl_seconds as u64)));
        if let Some(member) = self.member(id) {
            member.propose([(ticket, Command::LeaseGrant { ttl_seconds })]);
        }
    }

    fn ask_to_compact(&mut self, client: usize) {
        let Some(id) = self.writer() else { return };
        let revision = self.history.last().saturating_sub(5 + self.dice.below(60));
        let ticket = self.sent(client, id, What::Compact);
        if let Some(member) = self.member(id) {
            member.propose([(ticket, Command::Compact { revision })]);
        }
    }

    /// A member has answered.
    pub(super) fn answered(&mut self, id: u64, ticket: Ticket, applied: Applied) -> Result<(), String> {
        // What members propose for themselves, and changes of the group, nobody waits for.
        let Some(asked) = self.asked.remove(&ticket) else { return Ok(()) };
        if let Some(client) = self.clients.get_mut(asked.client) {
            client.lost(ticket);
        }
        match (asked.what, applied) {
            (_, Applied::Refused(Error::Unknown(_))) => self.tally.unknown += 1,
            (What::Txn, Applied::Commit(Commit::Done(revision))) => {
                self.tally.writes += 1;
                self.history.done(ticket, revision)?;
            }
            (What::Txn, Applied::Commit(Commit::Conflict(at, found))) => {
                self.tally.conflicts += 1;
                self.history.conflict(ticket, at, &found)?;
            }
            (What::Txn, Applied::Refused(why)) => {
                self.tally.full += u64::from(matches!(why, Error::NoSpace));
                self.history.refused(ticket)?;
            }
            (What::Read(floor), Applied::Done) => {
                self.tally.reads += 1;
                self.read(id, asked.client, floor)?;
            }
            (What::Grant(asked_at, ttl), Applied::Granted(lease)) => {
                self.history.granted(lease, asked_at, ttl)?;
                if let Some(client) = self.clients.get_mut(asked.client) {
                    client.lease = lease;
                }
            }
            (What::Compact, Applied::Done) | (What::Read(_) | What::Grant(..) | What::Compact, Applied::Refused(_)) => {
            }
            (_, other) => return Err(format!("{ticket} was answered with {other:?}")),
        }
        Ok(())
    }

    /// What is there now, and what was there a while ago.
    fn read(&mut self, id: u64, client: usize, floor: Revision) -> Result<(), String> {
        let old = self.history.last().saturating_sub(self.dice.below(40)).max(1);
        let Some(member) = self.member(id) else { return Ok(()) };
        let page = member.range(&Range::prefix("/")).map_err(|error| format!("a read failed: {error}"))?;
        let past = member.range(&Range { revision: old.min(page.revision), ..Range::prefix("/k/") });
        self.history.read(floor, b"/", &page)?;
        match past {
            Ok(past) => self.history.shows(b"/k/", &past)?,
            Err(Error::Compacted(oldest)) if oldest > old.min(page.revision) => {}
            Err(error) => return Err(format!("a read of {old} failed: {error}")),
        }
        if let Some(client) = self.clients.get_mut(client) {
            client.seen = page.entries.into_iter().map(|entry| (entry.key, entry.mod_revision)).collect();
        }
        Ok(())
    }
}
