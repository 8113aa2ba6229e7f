//! Machines with a disk each, the members on them, and one step of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clients::{Asked, Client};
use super::dice::Dice;
use super::history::History;
use super::network::Network;
use super::operator::Operator;
use super::watchers::{Observer, Seen, Watcher};
use super::{Tally, settings};
use crate::Error;
use crate::embedded::lossy::{Lossy, Unsynced};
use crate::embedded::snapshot::Writer;
use crate::embedded::{Identity, Member, Ticket};

/// How much time one step is.
pub(super) const STEP: Duration = Duration::from_millis(10);
/// Those who begin the group.
pub(super) const FOUNDERS: [u64; 3] = [1, 2, 3];
/// What the watchers watch.
const WATCHED: [&str; 4] = ["/", "/k/", "/k/3", "/t/"];

/// A machine of the group.
pub(super) struct Machine {
    pub(super) disk: Lossy,
    pub(super) state: State,
    /// What was changed on its disk behind its back: the file and the offset.
    pub(super) damage: Option<(String, usize)>,
}

/// What a machine does.
pub(super) enum State {
    Runs(Box<Process>),
    /// It is down until then.
    Down(Duration),
    /// Its disk was found to be damaged: it never comes back.
    Lost,
}

/// A member that runs.
pub(super) struct Process {
    pub(super) member: Member<Lossy>,
    /// The member's clock begins with it.
    began: Duration,
    /// It does nothing before that.
    pub(super) sleeps_until: Duration,
    observer: Observer,
    /// A snapshot that is being written, and when it is done.
    snapshot: Option<(Duration, Writer, Lossy)>,
}

/// Everything.
pub(super) struct Cluster {
    pub(super) dice: Dice,
    pub(super) now: Duration,
    pub(super) machines: BTreeMap<u64, Machine>,
    pub(super) network: Network,
    pub(super) history: History,
    pub(super) clients: Vec<Client>,
    /// What was asked for and not answered, by its ticket.
    pub(super) asked: BTreeMap<Ticket, Asked>,
    pub(super) operator: Operator,
    pub(super) trace: Vec<String>,
    pub(super) tally: Tally,
    /// When clients stop asking.
    pub(super) quiet_from: Duration,
    watchers: Vec<Watcher>,
    leaders: BTreeMap<u64, u64>,
    last_ticket: Ticket,
}

impl Machine {
    /// The member, if it runs.
    pub(super) fn member(&mut self) -> Option<&mut Member<Lossy>> {
        match &mut self.state {
            State::Runs(process) => Some(&mut process.member),
            _ => None,
        }
    }
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Result<Self, String> {
        let mut cluster = Self {
            dice: Dice::new(seed),
            now: Duration::ZERO,
            machines: BTreeMap::new(),
            network: Network::default(),
            history: History::default(),
            clients: (0..4).map(Client::new).collect(),
            asked: BTreeMap::new(),
            operator: Operator::new(FOUNDERS.len() as u64 + 1),
            trace: Vec::new(),
            tally: Tally::default(),
            quiet_from: Duration::MAX,
            watchers: WATCHED.map(Watcher::new).into(),
            leaders: BTreeMap::new(),
            last_ticket: 0,
        };
        FOUNDERS.iter().try_for_each(|id| cluster.add(*id))?;
        Ok(cluster)
    }

    /// A new machine with an empty disk.
    pub(super) fn add(&mut self, id: u64) -> Result<(), String> {
        let machine = Machine { disk: Lossy::default(), state: State::Down(self.now), damage: None };
        self.machines.insert(id, machine);
        self.start(id)
    }

    /// Notes what happened.
    pub(super) fn note(&mut self, what: impl AsRef<str>) {
        self.trace.push(format!("{:>9.3} {}", self.now.as_secs_f64(), what.as_ref()));
    }

    /// A number for a request.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// Those that run.
    pub(super) fn running(&self) -> Vec<u64> {
        let runs = |(id, machine): (&u64, &Machine)| matches!(machine.state, State::Runs(_)).then_some(*id);
        self.machines.iter().filter_map(runs).collect()
    }

    /// Those that say that they lead, the one with the newest term last.
    pub(super) fn leading(&mut self) -> Vec<u64> {
        let mut leading = Vec::new();
        for (id, machine) in &mut self.machines {
            leading.extend(machine.member().filter(|m| m.leads()).map(|m| (m.vote().0, *id)));
        }
        leading.sort_unstable();
        leading.into_iter().map(|(_, id)| id).collect()
    }

    /// The member on a machine, if it runs.
    pub(super) fn member(&mut self, id: u64) -> Option<&mut Member<Lossy>> {
        self.machines.get_mut(&id)?.member()
    }

    /// Opens what is on a machine's disk and lets the member run.
    pub(super) fn start(&mut self, id: u64) -> Result<(), String> {
        let life = self.dice.number();
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        let identity = Identity { cluster: 1, member: id, voters: FOUNDERS.to_vec() };
        let opened = Member::open(machine.disk.clone(), settings(), &identity, life);
        let member = match opened {
            Ok(member) => member,
            Err(error) => return self.did_not_start(id, error),
        };
        let observer = Observer::new(member.served(), &mut self.history, self.now)?;
        let process = Process { member, began: self.now, sleeps_until: self.now, observer, snapshot: None };
        machine.state = State::Runs(Box::new(process));
        machine.damage = None;
        self.note(format!("{id} starts"));
        Ok(())
    }

    fn did_not_start(&mut self, id: u64, error: Error) -> Result<(), String> {
        let again = self.now + self.dice.millis(500, 1500);
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        match (error, &machine.damage) {
            (Error::Corrupt(what), Some((file, _)))
                if [file, "offset", "restore the data directory from a backup"].iter().all(|w| what.contains(*w)) =>
            {
                machine.state = State::Lost;
                self.tally.refused += 1;
                self.note(format!("{id} refuses to start: {what}"));
            }
            (Error::NoSpace, _) => machine.state = State::Down(again),
            (_, _) if machine.disk.is_off() => self.cut_power(id)?,
            (error, damage) => return Err(format!("{id} does not start (damaged: {damage:?}): {error}")),
        }
        Ok(())
    }

    /// Ends a member; whoever waits for its answer never learns it. Its disk keeps what it was given.
    pub(super) fn kill(&mut self, id: u64, why: &str) {
        let back = self.now + self.dice.millis(0, 3000);
        let Some(machine) = self.machines.get_mut(&id) else { return };
        if let State::Runs(_) = machine.state {
            machine.state = State::Down(back);
        }
        self.note(format!("{id} ends: {why}"));
        self.forget(id);
    }

    /// Everyone lets go of a machine.
    pub(super) fn forget(&mut self, id: u64) {
        let gone: Vec<Ticket> = self.asked.iter().filter(|(_, a)| a.member == id).map(|(ticket, _)| *ticket).collect();
        for ticket in gone {
            self.asked.remove(&ticket);
            self.clients.iter_mut().for_each(|client| client.lost(ticket));
        }
        self.watchers.iter_mut().filter(|w| w.member() == Some(id)).for_each(Watcher::leave);
    }

    /// Ends a member together with its machine.
    pub(super) fn cut_power(&mut self, id: u64) -> Result<(), String> {
        let unsynced = match self.dice.below(4) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            _ => Unsynced::Torn(self.dice.number()),
        };
        self.tally.cuts += 1;
        self.kill(id, &format!("power cut, unsynced {unsynced:?}"));
        let Some(machine) = self.machines.get_mut(&id) else { return Ok(()) };
        machine.disk = machine.disk.after_power_cut(unsynced);
        Ok(())
    }

    /// Lets some time pass for everyone.
    pub(super) fn step(&mut self) -> Result<(), String> {
        self.now += STEP;
        for message in self.network.arrivals(self.now) {
            let asleep = self.asleep(message.to);
            match self.member(message.to) {
                Some(_) if asleep => self.network.send(message, self.now, &mut self.dice),
                Some(member) => member.receive(message),
                None => {}
            }
        }
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            self.step_machine(id)?;
        }
        self.one_leader_a_term()?;
        self.step_clients()?;
        self.step_watchers()?;
        self.step_operator()
    }

    fn asleep(&self, id: u64) -> bool {
        let state = self.machines.get(&id).map(|machine| &machine.state);
        matches!(state, Some(State::Runs(process)) if process.sleeps_until > self.now)
    }

    fn step_machine(&mut self, id: u64) -> Result<(), String> {
        if self.asleep(id) {
            return Ok(());
        }
        match self.machines.get_mut(&id).map(|machine| &mut machine.state) {
            Some(State::Down(until)) if *until <= self.now => self.start(id),
            Some(State::Runs(process)) => {
                let turn = process.turn(&mut self.history, self.now, &mut self.dice)?;
                match turn {
                    Ok(turn) => self.took_turn(id, turn),
                    Err(error) => self.stopped(id, &error),
                }
            }
            _ => Ok(()),
        }
    }

    fn took_turn(&mut self, id: u64, turn: crate::embedded::Turn) -> Result<(), String> {
        for (ticket, applied) in turn.answers {
            self.answered(id, ticket, applied)?;
        }
        for message in turn.messages {
            let snapshot = message.get_msg_type() == raft::eraftpb::MessageType::MsgSnapshot;
            self.tally.snapshots += u64::from(snapshot);
            self.network.send(message, self.now, &mut self.dice);
        }
        Ok(())
    }

    /// A member may stop when its disk fails or is full, and for no other reason.
    fn stopped(&mut self, id: u64, error: &Error) -> Result<(), String> {
        let Some(machine) = self.machines.get(&id) else { return Ok(()) };
        match error {
            _ if machine.disk.is_off() => self.cut_power(id),
            Error::NoSpace => {
                self.tally.full += 1;
                self.kill(id, "the disk is full");
                Ok(())
            }
            other => Err(format!("{id} stopped: {other}")),
        }
    }

    fn one_leader_a_term(&mut self) -> Result<(), String> {
        for id in self.leading() {
            let term = self.member(id).map_or(0, |member| member.vote().0);
            match *self.leaders.entry(term).or_insert(id) {
                first if first != id => return Err(format!("{first} and {id} both lead in term {term}")),
                _ => {}
            }
        }
        self.tally.leaders = self.leaders.len() as u64;
        Ok(())
    }

    fn step_watchers(&mut self) -> Result<(), String> {
        let running = self.running();
        for watcher in &mut self.watchers {
            if self.dice.once_in(400) {
                watcher.leave();
                watcher.away_until = self.now + self.dice.millis(0, 6000);
            }
            if watcher.away_until > self.now {
                continue;
            }
            let member = watcher.member().or_else(|| self.dice.pick(&running));
            let Some(id) = member else { continue };
            let Some(served) = self.machines.get_mut(&id).and_then(Machine::member).map(|m| m.served().clone()) else {
                continue;
            };
            if watcher.member().is_none() {
                self.tally.resumed += 1;
                if watcher.resume(id, &served, &self.history)? == Seen::Relisted {
                    self.tally.relisted += 1;
                    continue;
                }
            }
            if watcher.look(&served, &self.history)? == Seen::Relisted {
                self.tally.relisted += 1;
            }
            if self.dice.once_in(200) {
                served.progress();
            }
        }
        Ok(())
    }

    /// Whether nobody asks for anything, all members have and serve the same, and everyone who watches has seen it.
    pub(super) fn is_at_rest(&mut self) -> bool {
        self.operator.is_idle() && self.clients.iter().all(Client::is_idle) && self.agrees()
    }

    fn agrees(&mut self) -> bool {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for machine in self.machines.values_mut() {
            let Some(member) = machine.member() else { return false };
            seen.insert((member.log_end(), member.members().0.to_vec(), member.members().1.to_vec()));
            all.push(member.served().clone());
        }
        let same = |pair: &[std::sync::Arc<crate::served::Served>]| match pair {
            [a, b] => a.read(|a| b.read(|b| a == b)),
            _ => true,
        };
        seen.len() == 1 && all.windows(2).all(same) && self.watchers.iter().all(|w| w.is_done(&self.history))
    }
}

impl Process {
    /// What the member does in a step: the outer error is a fault of the store, the inner one of its disk.
    fn turn(
        &mut self,
        history: &mut History,
        now: Duration,
        dice: &mut Dice,
    ) -> Result<Result<crate::embedded::Turn, Error>, String> {
        self.member.advance(now - self.began);
        let turn = match self.member.settle() {
            Ok(turn) => turn,
            Err(error) => return Ok(Err(error)),
        };
        self.observer.look(self.member.served(), history, now)?;
        Ok(self.snapshot(now, dice).map(|()| turn))
    }

    /// A snapshot takes a while, in which the member goes on.
    fn snapshot(&mut self, now: Duration, dice: &mut Dice) -> Result<(), Error> {
        if let Some((_, writer, disk)) = self.snapshot.take_if(|(done, ..)| *done <= now) {
            self.member.snapshot_taken(writer.save(&disk))?;
        }
        if let Some((writer, disk)) = self.member.snapshot_due() {
            self.snapshot = Some((now + dice.millis(0, 300), writer, disk));
        }
        Ok(())
    }
}
