//! Three members without threads: messages late, doubled and lost, members cut off, their power cut, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use store::embedded::lossy::{Lossy, Unsynced};
use store::embedded::{Applied, Command, Identity, LogConfig, Member, Settings, Ticket};
use store::{Commit, Range, Revision, Txn};

use crate::conformance::put;

/// A small generator of numbers; the seed decides everything but raft's own election timeouts.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

const IDS: [u64; 3] = [1, 2, 3];

struct Group {
    dice: Dice,
    now: Duration,
    life: u64,
    disks: BTreeMap<u64, Lossy>,
    members: BTreeMap<u64, Member<Lossy>>,
    mail: Vec<raft::eraftpb::Message>,
    apart: Option<u64>,
    next_ticket: Ticket,
    /// Proposals without an answer, and those known to be committed with their revision.
    open: BTreeMap<Ticket, String>,
    acknowledged: BTreeMap<Revision, String>,
}

fn settings() -> Settings {
    Settings { log: LogConfig { segment_bytes: 8 << 10 }, snapshot_bytes: 16 << 10, ..Settings::default() }
}

impl Group {
    fn new(seed: u64) -> Self {
        let disks = IDS.map(|id| (id, Lossy::default())).into();
        let mut group = Self {
            dice: Dice(seed),
            now: Duration::ZERO,
            life: 0,
            disks,
            members: BTreeMap::new(),
            mail: Vec::new(),
            apart: None,
            next_ticket: 0,
            open: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        };
        IDS.iter().for_each(|id| group.start(*id));
        group
    }

    fn start(&mut self, id: u64) {
        self.life += 1;
        let identity = Identity { cluster: 1, member: id, voters: IDS.to_vec() };
        let mut member = Member::open(self.disks[&id].clone(), settings(), &identity, self.life).unwrap();
        member.advance(self.now);
        self.members.insert(id, member);
    }

    fn cut_power(&mut self, id: u64) {
        self.members.remove(&id);
        let unsynced = match self.dice.roll(3) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            _ => Unsynced::Torn(self.dice.roll(u64::MAX)),
        };
        let after = self.disks[&id].after_power_cut(unsynced);
        self.disks.insert(id, after);
    }

    fn propose(&mut self) {
        let leaders = self.members.iter_mut().filter(|(_, m)| m.leads()).map(|(id, _)| *id).collect::<Vec<_>>();
        if leaders.is_empty() {
            return;
        }
        let leader = leaders[self.dice.roll(leaders.len() as u64) as usize];
        for _ in 0..=self.dice.roll(3) {
            self.next_ticket += 1;
            let key = format!("/{:02}/{}", self.next_ticket % 20, self.next_ticket);
            self.open.insert(self.next_ticket, key.clone());
            let txn = Txn { compare: vec![], ops: vec![put(&key, &"v".repeat(100))] };
            self.members.get_mut(&leader).unwrap().propose([(self.next_ticket, Command::Txn(txn))]);
        }
    }

    /// One step of everyone: time, messages, disk.
    fn step(&mut self, chaos: bool) {
        self.now += Duration::from_millis(30);
        for message in std::mem::take(&mut self.mail) {
            let cut = self.apart.is_some_and(|id| id == message.from || id == message.to);
            match if chaos { self.dice.roll(20) } else { 9 } {
                _ if cut => {}
                0 => {}
                1 | 2 => self.mail.push(message),
                n => {
                    for _ in 0..if n == 3 { 2 } else { 1 } {
                        if let Some(member) = self.members.get_mut(&message.to) {
                            member.receive(message.clone());
                        }
                    }
                }
            }
        }
        for member in self.members.values_mut() {
            member.advance(self.now);
            let turn = member.settle().unwrap();
            member.snapshot_now().unwrap();
            self.mail.extend(turn.messages);
            for (ticket, applied) in turn.answers {
                if let (Some(key), Applied::Commit(Commit::Done(revision))) = (self.open.remove(&ticket), applied) {
                    let twice = self.acknowledged.insert(revision, key);
                    assert_eq!(twice, None, "revision {revision} was issued twice");
                }
            }
        }
    }

    fn chaos(&mut self) {
        match self.dice.roll(60) {
            0 => self.apart = Some(IDS[self.dice.roll(3) as usize]),
            1 | 2 => self.apart = None,
            3 if self.members.len() == 3 => {
                let id = IDS[self.dice.roll(3) as usize];
                self.cut_power(id);
            }
            4..8 => {
                for id in IDS.into_iter().filter(|id| !self.members.contains_key(id)).collect::<Vec<_>>() {
                    self.start(id);
                }
            }
            _ => {}
        }
    }

    fn contents(&self) -> Vec<(Revision, BTreeSet<(Revision, String)>)> {
        let read = |m: &Member<Lossy>| {
            let page = m.range(&Range::prefix("/")).unwrap();
            let key = |k: &[u8]| String::from_utf8(k.to_vec()).unwrap();
            (page.revision, page.entries.into_iter().map(|e| (e.mod_revision, key(&e.key))).collect())
        };
        self.members.values().map(read).collect()
    }
}

#[test]
fn three_members_agree_whatever_happens() {
    for seed in 0..12 {
        let mut group = Group::new(seed);
        for _ in 0..1200 {
            group.chaos();
            group.propose();
            group.step(true);
        }
        group.apart = None;
        IDS.into_iter().filter(|id| !group.members.contains_key(id)).collect::<Vec<_>>().into_iter().for_each(|id| {
            group.start(id);
        });
        for _ in 0..300 {
            group.step(false);
        }
        let contents = group.contents();
        let at: Vec<_> = contents.iter().map(|(revision, keys)| (revision, keys.len())).collect();
        assert!(contents.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: members differ: {at:?}");
        assert!(group.acknowledged.len() > 50, "seed {seed}: only {} writes", group.acknowledged.len());
        for (revision, key) in &group.acknowledged {
            assert!(contents[0].1.contains(&(*revision, key.clone())), "seed {seed}: {key} at {revision} is lost");
        }
    }
}
