//! What is on a member's disk at the moment that counts.

use std::collections::BTreeSet;

use raft::StorageError;
use raft::eraftpb::{Entry, Message, MessageType, Snapshot};
use raft::storage::Storage;

use super::{Identity, Member, Settings};
use crate::embedded::lossy::{Lossy, Unsynced};
use crate::embedded::{FIRST_INDEX, FIRST_TERM, LogConfig};

fn member(disk: &Lossy, voters: &[u64], number: u64) -> Member<Lossy> {
    let settings = Settings { log: LogConfig { segment_bytes: 4096 }, ..Settings::default() };
    let identity = Identity { cluster: 7, member: number, voters: voters.to_vec() };
    Member::open(disk.clone(), settings, &identity, 1).expect("a member")
}

fn from_two(kind: MessageType, term: u64) -> Message {
    let mut message = Message { from: 2, to: 1, term, log_term: FIRST_TERM, index: FIRST_INDEX, ..Message::default() };
    message.set_msg_type(kind);
    message
}

#[test]
fn a_vote_that_was_given_is_remembered() {
    let disk = Lossy::default();
    let mut voter = member(&disk, &[1, 2, 3], 1);
    voter.receive(from_two(MessageType::MsgRequestVote, 5));
    let turn = voter.settle().expect("a turn");
    let given = |m: &Message| m.get_msg_type() == MessageType::MsgRequestVoteResponse && !m.reject;
    assert!(turn.messages.iter().any(given));
    let after = member(&disk.after_power_cut(Unsynced::Lost), &[1, 2, 3], 1);
    assert_eq!(after.vote(), (5, 2));
}

/// What the only member of another group hands out.
fn snapshot() -> Result<Snapshot, raft::Error> {
    let mut leader = member(&Lossy::default(), &[2], 2);
    leader.settle().map_err(|_| StorageError::Unavailable)?;
    leader.raft.store().snapshot(0, 1)
}

#[test]
fn a_leaders_snapshot_voids_the_log_before_it_wherever_its_arrival_is_cut() {
    let snapshot = snapshot().expect("a snapshot");
    let (index, term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
    let disk = Lossy::default();
    let mut follower = member(&disk, &[1, 2, 3], 1);
    let mut entries = from_two(MessageType::MsgAppend, term);
    let entry = |index| Entry { index, term, data: vec![0; 9].into(), ..Entry::default() };
    entries.entries = (FIRST_INDEX + 1..index + 20).map(entry).collect::<Vec<_>>().into();
    follower.receive(entries);
    follower.settle().expect("a turn");
    let old = follower.log_end();
    assert!(old.0 > index);

    let mut ends = BTreeSet::from([old]);
    for cut in 0.. {
        let disk = disk.after_power_cut(Unsynced::Lost);
        let mut follower = member(&disk, &[1, 2, 3], 1);
        disk.fuse(disk.written() + cut);
        let arrived = follower.install(&snapshot).is_ok();
        let after = member(&disk.after_power_cut(Unsynced::Lost), &[1, 2, 3], 1);
        let taken = after.raft.store().meta().index == index;
        assert_eq!(after.log_end(), if taken { (index, term) } else { old }, "cut after {cut} bytes");
        ends.insert(after.log_end());
        if arrived && !disk.is_off() {
            break;
        }
    }
    assert_eq!(ends.len(), 2);
}
