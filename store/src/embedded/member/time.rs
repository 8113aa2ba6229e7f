//! What is due when time passes: elections, leases that end, history that has grown too old or too large.

use std::time::Duration;

use super::{Command, Disk, Member, Ticket};
use crate::state::Applied;
use crate::{Error, Revision};

/// A member waits so many ticks for a leader, or up to twice as many, before it stands for election itself.
pub(super) const ELECTION_TICKS: usize = 10;
/// How often raft's clock ticks where there are several members.
const TICK: Duration = Duration::from_millis(100);
/// A barrier that raft has lost on the way is given up after this long.
pub(super) const BARRIER: Duration = Duration::from_secs(2);
/// The history's age is known at so many points.
const AGE_POINTS: u32 = 96;

impl<D: Disk> Member<D> {
    /// Lets time pass to `now` (on any monotonic clock) and does what is due.
    pub fn advance(&mut self, now: Duration) {
        self.now = now;
        if !self.alone() && self.ticked + TICK <= now {
            self.give_up();
        }
        while !self.alone() && self.ticked + TICK <= now {
            self.ticked += TICK;
            let patience = self.patience();
            self.raft.raft.set_randomized_election_timeout(patience);
            self.raft.tick();
        }
        if self.leads() {
            let mut due: Vec<Command> =
                self.lessor.expired(now).into_iter().map(|lease| Command::LeaseRevoke { lease }).collect();
            due.extend(self.outdated().map(|revision| Command::Compact { revision }));
            let first = self.maintenance - due.len() as Ticket;
            self.propose((first..self.maintenance).zip(due));
            self.maintenance = first;
        }
    }

    /// Nobody answers for a barrier that was asked of a member that did not lead, or was lost on the way.
    fn give_up(&mut self) {
        let over = |deadline: &Option<Duration>| deadline.is_some_and(|deadline| deadline <= self.now);
        let lost: Vec<Ticket> = self.waiting.iter().filter(|(_, at)| over(at)).map(|(ticket, _)| *ticket).collect();
        for ticket in lost {
            self.answer(ticket, Applied::Refused(Error::Unavailable("no member that leads has answered".to_owned())));
        }
    }

    /// How many ticks this member waits for a leader: another number in each term, so that two that stand for election at
    /// once do not do so again and again. Raft's own draw would make no run like another.
    fn patience(&self) -> usize {
        let mixed = (self.life ^ self.raft.raft.term.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ELECTION_TICKS + (mixed >> 32) as usize % ELECTION_TICKS
    }

    /// When time must pass again even if nothing happens.
    pub fn next_wake(&self) -> Option<Duration> {
        let tick = (!self.alone()).then(|| self.ticked + TICK);
        let lease = self.lessor.next();
        let age = self.ages.front().filter(|_| !self.snapshotting).map(|(at, _)| *at + self.settings.history);
        [tick, lease, age].into_iter().flatten().min()
    }

    /// The revision to compact to, if history has grown too old or too large.
    fn outdated(&mut self) -> Option<Revision> {
        let (revision, compacted, bytes) = self.served.read(|s| (s.revision(), s.compacted(), s.history_bytes()));
        if self.snapshotting {
            return None;
        }
        let step = self.settings.history / AGE_POINTS;
        if self.ages.back().is_none_or(|(at, seen)| *seen != revision && *at + step <= self.now) {
            self.ages.push_back((self.now, revision));
        }
        let mut target = None;
        while let Some((_, old)) = self.ages.pop_front_if(|(at, _)| *at + self.settings.history <= self.now) {
            target = Some(old);
        }
        if bytes > self.settings.history_bytes {
            target = target.max(self.served.read(|s| s.revision_to_free(bytes - self.settings.history_bytes / 4 * 3)));
        }
        target.filter(|t| *t > compacted)
    }
}
