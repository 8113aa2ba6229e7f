//! One member of the raft group: proposals, messages and time come in, durable writes go to its disk, answers and
//! messages come out. It has no thread and no clock, so that a simulator can drive it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use raft::eraftpb::{Entry, EntryType, HardState, Message, MessageType};
use raft::{Config as RaftConfig, RawNode, StateRole};

use super::disk::Disk;
use super::log::{Log, LogConfig, corrupt};
use super::snapshot::{self, Meta};
use super::tail::Tail;
use crate::served::Served;
use crate::state::{Applied, Command, Lessor, State};
use crate::{Error, Page, Range, Revision};

mod membership;
mod snapshots;
#[cfg(test)]
mod tests;
mod time;

pub use membership::Change;

/// How a member keeps its data.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The log's segments.
    pub log: LogConfig,
    /// History older than this is compacted.
    pub history: Duration,
    /// History larger than this (in memory, about) is compacted.
    pub history_bytes: usize,
    /// A snapshot is made when the log since the last one has so many bytes, or as many as that snapshot.
    pub snapshot_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log: LogConfig { segment_bytes: 16 << 20 },
            history: Duration::from_secs(24 * 3600),
            history_bytes: 1 << 30,
            snapshot_bytes: 32 << 20,
        }
    }
}

/// Who a new member is. Members that begin a cluster together get the same cluster and voters.
#[derive(Clone, Debug)]
pub struct Identity {
    /// A number that no other cluster has.
    pub cluster: u64,
    /// This member's number, not 0.
    pub member: u64,
    /// The members that the cluster begins with.
    pub voters: Vec<u64>,
}

/// Space is asked for again this long after the disk was found full.
const SPACE_RETRY: Duration = Duration::from_secs(1);
/// Names a proposal, so that its answer finds its way back.
pub type Ticket = u64;

/// What a turn brought.
#[derive(Default)]
pub struct Turn {
    /// Answers to proposals and barriers.
    pub answers: Vec<(Ticket, Applied)>,
    /// Messages to other members.
    pub messages: Vec<Message>,
}

/// A member.
pub struct Member<D: Disk> {
    raft: RawNode<Tail>,
    log: Log<D>,
    disk: D,
    served: Arc<Served>,
    lessor: Lessor,
    settings: Settings,
    /// Tells this process's proposals from those that one before it left in the log.
    life: u64,
    /// What has no answer yet; a barrier is given up at some time.
    waiting: BTreeMap<Ticket, Option<Duration>>,
    barriers: VecDeque<(u64, Ticket)>,
    turn: Turn,
    now: Duration,
    ticked: Duration,
    space_asked: Option<Duration>,
    ages: VecDeque<(Duration, Revision)>,
    /// Bytes of the last snapshot.
    snapshot_size: usize,
    log_at_snapshot: usize,
    snapshotting: bool,
    maintenance: Ticket,
}

impl<D: Disk> Member<D> {
    /// Opens what is on the disk; a new one begins as `identity`. `life` is a number never used before.
    pub fn open(disk: D, settings: Settings, identity: &Identity, life: u64) -> Result<Self, Error> {
        let (meta, state, snapshot_size) = match snapshot::open(&disk)? {
            Some(found) => found,
            None => (snapshots::begin(&disk, identity)?, State::default(), 0),
        };
        if meta.member != identity.member {
            return Err(Error::Corrupt(format!("the data belongs to member {}, not {}", meta.member, identity.member)));
        }
        let base = (meta.index, meta.term);
        let (log, recovered) = Log::open(disk.clone(), settings.log, meta.cluster, base, meta.installed)?;
        let last = recovered.entries.last().map_or(meta.index, |e| e.index);
        let mut hard_state = recovered.hard_state;
        if hard_state.commit > last {
            return Err(corrupt("log-*.seg", 0, "entries that were committed are missing at its end"));
        }
        hard_state.commit = hard_state.commit.max(meta.index);
        hard_state.term = hard_state.term.max(meta.term);
        let served = Arc::new(Served::new(state));
        let tail = Tail::new(&meta, served.clone(), hard_state, recovered.entries);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&raft_config(&meta), tail, &logger).map_err(|e| raft_failed(&e))?;
        let log_at_snapshot = 0;
        let mut member = Self {
            raft,
            log,
            disk,
            served,
            lessor: Lessor::default(),
            settings,
            life,
            waiting: BTreeMap::new(),
            barriers: VecDeque::new(),
            turn: Turn::default(),
            now: Duration::ZERO,
            ticked: Duration::ZERO,
            space_asked: None,
            ages: VecDeque::new(),
            snapshot_size,
            log_at_snapshot,
            snapshotting: false,
            maintenance: Ticket::MAX,
        };
        member.start()?;
        Ok(member)
    }

    /// The only voter need not wait for anyone: it leads at once and so applies all that its log holds.
    fn start(&mut self) -> Result<(), Error> {
        if self.alone() {
            self.raft.campaign().map_err(|e| raft_failed(&e))?;
            self.settle()?;
        }
        Ok(())
    }

    /// Reads what is applied here; only after a [`Self::barrier`] is it not older than what others have.
    pub fn range(&self, range: &Range) -> Result<Page, Error> {
        self.served.range(range)
    }

    /// What is served for reading.
    pub(crate) fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// Whether this is the only voter.
    pub fn alone(&self) -> bool {
        let tail = self.raft.store();
        tail.conf.voters == [tail.member] && tail.conf.voters_outgoing.is_empty()
    }

    /// Whether this member leads the group.
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// The newest term that this member knows, and whom it gave its voice in it (0: nobody).
    pub fn vote(&self) -> (u64, u64) {
        (self.raft.raft.term, self.raft.raft.vote)
    }

    /// The index and term of the last entry of its log.
    pub fn log_end(&self) -> (u64, u64) {
        let log = &self.raft.raft.raft_log;
        (log.last_index(), log.last_term())
    }

    /// Proposes commands; all of them share one durable write. The answers come with a later turn.
    pub fn propose(&mut self, commands: impl IntoIterator<Item = (Ticket, Command)>) {
        let encoded = commands.into_iter().map(|(ticket, c)| (ticket, c.encode().into(), c.grows()));
        self.propose_encoded(encoded.collect());
    }

    /// Proposes commands that are encoded already, and whether each needs space that only its successors give back.
    pub(crate) fn propose_encoded(&mut self, proposals: Vec<(Ticket, Bytes, bool)>) {
        let spacious = self.find_space();
        let mut entries = Vec::with_capacity(proposals.len());
        let mut size = 0;
        for (ticket, data, grows) in proposals {
            size += data.len() + 128;
            if (grows && !spacious) || !self.log.has_room(size) {
                self.turn.answers.push((ticket, Applied::Refused(Error::NoSpace)));
            } else {
                let context = self.context(ticket);
                entries.push(Entry { data, context, ..Entry::default() });
                self.waiting.insert(ticket, None);
            }
        }
        let tickets: Vec<Ticket> = entries.iter().filter_map(|e| self.ticket(&e.context)).collect();
        if entries.is_empty() {
            return;
        }
        let mut message = Message { from: self.raft.raft.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.entries = entries.into();
        let accepted = if self.leads() { self.raft.raft.step(message) } else { Err(raft::Error::ProposalDropped) };
        if let Err(error) = accepted {
            for ticket in tickets {
                let refused = Error::Unavailable(format!("this member does not lead: {error}"));
                self.answer(ticket, Applied::Refused(refused));
            }
        }
    }

    fn context(&self, ticket: Ticket) -> Bytes {
        let mut context = Vec::with_capacity(16);
        context.put_u64_le(self.life);
        context.put_u64_le(ticket);
        context.into()
    }

    /// The ticket of an entry that this life of this member proposed.
    fn ticket(&self, context: &Bytes) -> Option<Ticket> {
        let (life, ticket) = context.split_first_chunk::<8>()?;
        let ticket = ticket.first_chunk::<8>()?;
        (u64::from_le_bytes(*life) == self.life).then_some(u64::from_le_bytes(*ticket))
    }

    fn answer(&mut self, ticket: Ticket, applied: Applied) {
        if self.waiting.remove(&ticket).is_some() {
            self.turn.answers.push((ticket, applied));
        }
    }

    /// Whether the log can go on growing; a full disk is asked again from time to time.
    fn find_space(&mut self) -> bool {
        if self.space_asked.is_some_and(|asked| self.now < asked + SPACE_RETRY) {
            return false;
        }
        match self.log.make_spare() {
            Ok(()) => self.space_asked = None,
            Err(error) => {
                if self.space_asked.is_none() {
                    tracing::warn!(%error, "the disk is full: writes are refused, reads and deletes go on");
                }
                self.space_asked = Some(self.now);
            }
        }
        self.space_asked.is_none()
    }

    /// Asks for an answer as soon as everything committed before now can be read here; `Unavailable` if nobody leads, or
    /// whoever does cannot be asked.
    pub fn barrier(&mut self, ticket: Ticket) {
        self.waiting.insert(ticket, Some(self.now + time::BARRIER));
        self.raft.read_index(self.context(ticket).to_vec());
    }

    /// Keeps a lease alive.
    pub fn renew(&mut self, lease: i64) -> Result<(), Error> {
        if !self.leads() {
            return Err(Error::Unavailable("this member does not lead".to_owned()));
        }
        let ttl = self.served.read(|s| s.lease_ttl(lease)).ok_or(Error::LeaseNotFound(lease))?;
        self.lessor.renew(lease, ttl, self.now);
        Ok(())
    }

    /// Takes in a message from another member.
    pub fn receive(&mut self, message: Message) {
        if let Err(error) = self.raft.step(message) {
            tracing::debug!(%error, "message ignored");
        }
    }

    /// Writes, sends and applies until raft has nothing more to do, and hands out what came of it.
    pub fn settle(&mut self) -> Result<Turn, Error> {
        while self.raft.has_ready() {
            self.ready()?;
            self.vouch_for_snapshots();
        }
        Ok(std::mem::take(&mut self.turn))
    }

    fn ready(&mut self) -> Result<(), Error> {
        let mut ready = self.raft.ready();
        self.turn.messages.extend(ready.take_messages());
        if !ready.snapshot().is_empty() {
            self.install(ready.snapshot())?;
        }
        self.apply(ready.take_committed_entries())?;
        let entries = ready.take_entries();
        self.persist(ready.hs(), entries, ready.must_sync())?;
        if ready.ss().is_some_and(|ss| ss.raft_state != StateRole::Leader) {
            self.lose_lead();
        } else if ready.ss().is_some() {
            self.take_lead();
        }
        self.turn.messages.extend(ready.take_persisted_messages());
        let reads = ready.take_read_states();
        let mut light = self.raft.advance_append(ready);
        self.turn.messages.extend(light.take_messages());
        self.apply(light.take_committed_entries())?;
        self.raft.advance_apply();
        for read in reads {
            let ticket = self.ticket(&read.request_ctx.into());
            self.barriers.extend(ticket.map(|ticket| (read.index, ticket)));
        }
        self.open_barriers();
        Ok(())
    }

    /// One durable write for all that came together. The commit index alone need not be durable.
    fn persist(&mut self, hard_state: Option<&HardState>, entries: Vec<Entry>, sync: bool) -> Result<(), Error> {
        let tail = self.raft.mut_store();
        if let Some(hard_state) = hard_state {
            tail.hard_state = hard_state.clone();
        }
        if sync {
            self.log.append(Some(&tail.hard_state), &entries)?;
        }
        tail.append(entries);
        Ok(())
    }

    fn lose_lead(&mut self) {
        for ticket in std::mem::take(&mut self.waiting).into_keys() {
            let lost = Error::Unknown("the lead was lost before the write was known to be committed".to_owned());
            self.turn.answers.push((ticket, Applied::Refused(lost)));
        }
        self.lessor = Lessor::default();
    }

    /// A new leader does not know how long leases have been kept alive: each gets its whole time again.
    fn take_lead(&mut self) {
        let leases: Vec<_> = self.served.read(|s| s.leases().collect());
        for (lease, ttl) in leases {
            self.lessor.renew(lease, ttl, self.now);
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        let Some(last) = entries.last().map(|e| (e.index, e.term)) else { return Ok(()) };
        let mut commands = Vec::with_capacity(entries.len());
        let mut tickets = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => {
                    tickets.push(self.ticket(&entry.context));
                    let command = Command::decode(entry.data);
                    commands.push(command.map_err(|e| corrupt("log", 0, e.0))?);
                }
                _ => self.reconfigure(&entry)?,
            }
        }
        let ended: Vec<_> = commands.iter().map(ended_lease).collect();
        let applied = self.served.apply(commands);
        self.raft.mut_store().applied = last;
        for ((applied, ticket), ended) in applied.into_iter().zip(tickets).zip(ended) {
            self.follow_leases(&applied, ended);
            if let Some(ticket) = ticket {
                self.answer(ticket, applied);
            }
        }
        Ok(())
    }

    fn follow_leases(&mut self, applied: &Applied, ended: Option<i64>) {
        if let Applied::Granted(lease) = applied
            && self.leads()
            && let Some(ttl) = self.served.read(|s| s.lease_ttl(*lease))
        {
            self.lessor.renew(*lease, ttl, self.now);
        }
        if let Some(lease) = ended {
            self.lessor.forget(lease);
        }
    }

    fn open_barriers(&mut self) {
        let applied = self.raft.store().applied.0;
        let mut open = Vec::new();
        self.barriers.retain(|(index, ticket)| {
            let waits = *index > applied;
            if !waits {
                open.push(*ticket);
            }
            waits
        });
        open.into_iter().for_each(|ticket| self.answer(ticket, Applied::Done));
    }
}

fn ended_lease(command: &Command) -> Option<i64> {
    match command {
        Command::LeaseRevoke { lease } => Some(*lease),
        _ => None,
    }
}

fn raft_config(meta: &Meta) -> RaftConfig {
    RaftConfig {
        id: meta.member,
        election_tick: time::ELECTION_TICKS,
        heartbeat_tick: 1,
        applied: meta.index,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        check_quorum: true,
        pre_vote: true,
        ..RaftConfig::default()
    }
}

fn raft_failed(error: &raft::Error) -> Error {
    Error::Unavailable(format!("raft: {error}"))
}
