//! Who belongs to the group. Changes are entries of the log like any other, one at a time; a member that comes is a
//! learner until it has caught up, so that the group's majority never depends on one that knows nothing yet.

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType};

use super::{Disk, Member, Ticket, corrupt, raft_failed};
use crate::Error;
use crate::state::Applied;

/// A learner may lack so many entries when it gets a voice.
const CAUGHT_UP: u64 = 256;

/// A change of who belongs to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A member of this number, never used before, is told everything and has no voice.
    Learner(u64),
    /// A learner that has caught up gets a voice.
    Voter(u64),
    /// A member other than the leader goes.
    Remove(u64),
}

impl<D: Disk> Member<D> {
    /// Proposes a change of who belongs to the group; `Applied::Done` when it is in force here. `Unavailable` if it may
    /// succeed later, `Invalid` if it never will.
    pub fn change(&mut self, ticket: Ticket, change: Change) {
        self.waiting.insert(ticket, None);
        if let Err(error) = self.allowed(change).and_then(|()| self.propose_change(ticket, change)) {
            self.answer(ticket, Applied::Refused(error));
        }
    }

    fn propose_change(&mut self, ticket: Ticket, change: Change) -> Result<(), Error> {
        let (kind, id) = match change {
            Change::Learner(id) => (ConfChangeType::AddLearnerNode, id),
            Change::Voter(id) => (ConfChangeType::AddNode, id),
            Change::Remove(id) => (ConfChangeType::RemoveNode, id),
        };
        let mut proposal = ConfChange { node_id: id, ..ConfChange::default() };
        proposal.set_change_type(kind);
        self.raft.propose_conf_change(self.context(ticket).to_vec(), proposal).map_err(|e| raft_failed(&e))
    }

    fn allowed(&self, change: Change) -> Result<(), Error> {
        let raft = &self.raft.raft;
        let invalid = |why: &str| Err(Error::Invalid(why.to_owned()));
        let later = |why: &str| Err(Error::Unavailable(why.to_owned()));
        if !self.leads() {
            return later("this member does not lead");
        }
        if raft.has_pending_conf() {
            return later("another change of the members is under way");
        }
        let (voters, learners) = self.members();
        match change {
            Change::Learner(id) if voters.contains(&id) || learners.contains(&id) => invalid("the member is there"),
            Change::Learner(0) => invalid("0 is no member's number"),
            Change::Voter(id) if !learners.contains(&id) => invalid("only a learner gets a voice"),
            Change::Voter(id) => match raft.prs().get(id) {
                Some(progress) if progress.matched + CAUGHT_UP >= raft.raft_log.last_index() => Ok(()),
                _ => later("the learner has not caught up"),
            },
            Change::Remove(id) if id == raft.id => invalid("a leader does not remove itself: let another lead first"),
            Change::Remove(id) if !voters.contains(&id) && !learners.contains(&id) => {
                invalid("there is no such member")
            }
            Change::Learner(_) | Change::Remove(_) => Ok(()),
        }
    }

    /// Puts a change of the members in force and answers who asked for it.
    pub(super) fn reconfigure(&mut self, entry: &Entry) -> Result<(), Error> {
        let malformed = |e: protobuf::ProtobufError| corrupt("log", 0, &e.to_string());
        let conf: Result<ConfState, _> = if entry.get_entry_type() == EntryType::EntryConfChange {
            let mut change = ConfChange::default();
            change.merge_from_bytes(&entry.data).map_err(malformed)?;
            self.raft.apply_conf_change(&change)
        } else {
            let mut change = ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).map_err(malformed)?;
            self.raft.apply_conf_change(&change)
        };
        self.raft.mut_store().conf = conf.map_err(|e| raft_failed(&e))?;
        if let Some(ticket) = self.ticket(&entry.context) {
            self.answer(ticket, Applied::Done);
        }
        Ok(())
    }

    /// Those with a voice and those without, as far as this member knows.
    pub fn members(&self) -> (&[u64], &[u64]) {
        let conf = &self.raft.store().conf;
        (&conf.voters, &conf.learners)
    }

    /// Lets another member lead, should it have caught up; proposals are refused until it does.
    pub fn yield_lead(&mut self, to: u64) {
        self.raft.transfer_leader(to);
    }
}
