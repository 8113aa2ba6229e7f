//! The store on this machine's own disk, through raft: one member now, several by the same code.
//!
//! A commit is a log entry; all commits that wait share one durable write ([`log`]). The state is in memory and made
//! again at start from the newest [`snapshot`] and the log after it. [`member`] decides, without threads or clocks; this
//! module gives it both.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::served::{Served, check};
use crate::state::State;
use crate::{Commit, Error, LeaseId, Page, Range, Revision, Store, Txn, Watch};

pub mod disk;
mod frame;
mod log;
pub mod lossy;
mod member;
pub(crate) mod snapshot;
mod tail;

pub use log::LogConfig;
pub use member::{Change, Identity, Member, Settings, Ticket, Turn};

pub use crate::state::{Applied, Command};

use disk::{Directory, Disk};
use snapshot::Meta;

/// A new group's log begins after this index, so that members that join later are sent the first snapshot.
const FIRST_INDEX: u64 = 1;
const FIRST_TERM: u64 = 1;

/// Requests that may wait at once; more wait outside.
const MAX_WAITING: usize = 4096;
/// One durable write carries about this much.
const MAX_WRITE_BYTES: usize = 4 << 20;

/// The embedded store. Clones share it; when the last one is dropped, it is closed.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    served: Arc<Served>,
    requests: Sender<Request>,
    room: Semaphore,
    /// Whether there is no other member to ask before reading.
    alone: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Request {
    Propose { data: Bytes, grows: bool, reply: oneshot::Sender<Applied> },
    Barrier(oneshot::Sender<Applied>),
    Renew(LeaseId, oneshot::Sender<Result<(), Error>>),
    Snapshot(Result<(Meta, usize), Error>),
    Close,
}

impl Embedded {
    /// Opens the store in a directory, the only member of its group; an empty directory becomes an empty store.
    /// `Unavailable` if another process has it open, `Corrupt` if acknowledged writes may be missing.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, Error> {
        let disk = Directory::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::Unavailable(format!("{} is in use by another process", path.display())),
            _ => Error::Unavailable(format!("opening {}: {error}", path.display())),
        })?;
        let identity = Identity { cluster: rand::random(), member: 1, voters: vec![1] };
        Self::open_on(disk, settings, &identity).map_err(|error| match error {
            Error::Corrupt(what) => Error::Corrupt(format!("{}: {what}", path.display())),
            other => other,
        })
    }

    /// Opens the store on any disk.
    pub fn open_on<D: Disk>(disk: D, settings: Settings, identity: &Identity) -> Result<Self, Error> {
        let member = Member::open(disk, settings, identity, rand::random())?;
        let served = member.served().clone();
        let alone = Arc::new(AtomicBool::new(member.alone()));
        let (requests, inbox) = mpsc::channel();
        let engine = Engine {
            member,
            inbox,
            outbox: requests.clone(),
            alone: alone.clone(),
            start: Instant::now(),
            replies: HashMap::new(),
            next_ticket: 0,
            snapshot: None,
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || engine.run());
        let thread = thread.map_err(|e| Error::Unavailable(format!("starting the store's thread: {e}")))?;
        let room = Semaphore::new(MAX_WAITING);
        let inner = Inner { served, requests, room, alone, thread: Mutex::new(Some(thread)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let closed = || Error::Unavailable("the store was closed".to_owned());
        let _room = self.inner.room.acquire().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        self.inner.requests.send(request(reply)).map_err(|_| closed())?;
        answer.await.map_err(|_| Error::Unknown("the store stopped before it answered".to_owned()))
    }

    async fn propose(&self, command: Command) -> Result<Applied, Error> {
        let grows = command.grows();
        let data = command.encode().into();
        match self.ask(|reply| Request::Propose { data, grows, reply }).await? {
            Applied::Refused(error) => Err(error),
            applied => Ok(applied),
        }
    }

    /// Waits until everything committed before now can be read here.
    async fn catch_up(&self) -> Result<(), Error> {
        if self.inner.alone.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.ask(Request::Barrier).await? {
            Applied::Refused(error) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // If the thread has ended already there is nothing to close.
        let _ = self.requests.send(Request::Close);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn commit(&self, txn: Txn) -> Result<Commit, Error> {
        check(&txn)?;
        self.propose(Command::Txn(txn)).await?.commit()
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        if range.revision == 0 {
            self.catch_up().await?;
        }
        self.inner.served.range(&range)
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.catch_up().await?;
        Ok(self.inner.served.read(State::revision))
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Watch, Error> {
        if from == 0 {
            self.catch_up().await?;
        }
        self.inner.served.watch(prefix, from)
    }

    async fn progress(&self) -> Result<(), Error> {
        self.catch_up().await?;
        self.inner.served.progress();
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.propose(Command::Compact { revision }).await.map(|_| ())
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, Error> {
        self.propose(Command::LeaseGrant { ttl_seconds }).await?.granted()
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), Error> {
        self.ask(|reply| Request::Renew(lease, reply)).await?
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.propose(Command::LeaseRevoke { lease }).await.map(|_| ())
    }
}

/// The store's thread: it takes all requests that wait, lets the member handle them in one go, and answers.
struct Engine<D: Disk> {
    member: Member<D>,
    inbox: Receiver<Request>,
    outbox: Sender<Request>,
    alone: Arc<AtomicBool>,
    start: Instant,
    replies: HashMap<Ticket, oneshot::Sender<Applied>>,
    next_ticket: Ticket,
    snapshot: Option<JoinHandle<()>>,
}

impl<D: Disk> Engine<D> {
    fn run(mut self) {
        let ended = self.work();
        if let Some(snapshot) = self.snapshot.take() {
            // Whoever opens the directory next must find it at rest.
            let _ = snapshot.join();
        }
        if let Err(error) = ended {
            tracing::error!(%error, "the store has stopped: writes are refused, reads go on");
            self.replies.clear();
            self.refuse(&error.to_string());
        }
    }

    fn work(&mut self) -> Result<(), Error> {
        while let Some(requests) = self.wait() {
            self.member.advance(self.start.elapsed());
            if !self.take(requests)? {
                break;
            }
            let turn = self.member.settle()?;
            for (ticket, applied) in turn.answers {
                if let Some(reply) = self.replies.remove(&ticket) {
                    // Whoever asked may have gone away.
                    let _ = reply.send(applied);
                }
            }
            self.alone.store(self.member.alone(), Ordering::Release);
            self.snapshot_if_due();
        }
        Ok(())
    }

    /// Waits for requests or for the time to do something without one.
    fn wait(&self) -> Option<Vec<Request>> {
        let first = match self.member.next_wake() {
            None => self.inbox.recv().ok().map(Some)?,
            Some(at) => match self.inbox.recv_timeout(at.saturating_sub(self.start.elapsed())) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return None,
            },
        };
        let mut requests: Vec<Request> = first.into_iter().collect();
        let mut bytes: usize = requests.iter().map(Request::bytes).sum();
        while bytes < MAX_WRITE_BYTES
            && let Ok(request) = self.inbox.try_recv()
        {
            bytes += request.bytes();
            requests.push(request);
        }
        Some(requests)
    }

    /// Hands requests to the member; false when the store is to be closed.
    fn take(&mut self, requests: Vec<Request>) -> Result<bool, Error> {
        let mut proposals = Vec::with_capacity(requests.len());
        let mut go_on = true;
        for request in requests {
            match request {
                Request::Propose { data, grows, reply } => proposals.push((self.ticket(reply), data, grows)),
                Request::Barrier(reply) => {
                    let ticket = self.ticket(reply);
                    self.member.barrier(ticket);
                }
                Request::Renew(lease, reply) => {
                    let _ = reply.send(self.member.renew(lease));
                }
                Request::Snapshot(taken) => self.member.snapshot_taken(taken)?,
                Request::Close => go_on = false,
            }
        }
        self.member.propose_encoded(proposals);
        Ok(go_on)
    }

    fn ticket(&mut self, reply: oneshot::Sender<Applied>) -> Ticket {
        self.next_ticket += 1;
        self.replies.insert(self.next_ticket, reply);
        self.next_ticket
    }

    fn snapshot_if_due(&mut self) {
        let Some((writer, disk)) = self.member.snapshot_due() else { return };
        let outbox = self.outbox.clone();
        let make = move || {
            // The store may be closed meanwhile.
            let _ = outbox.send(Request::Snapshot(writer.save(&disk)));
        };
        match std::thread::Builder::new().name("store-snapshot".to_owned()).spawn(make) {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => {
                let failed = Error::Unavailable(format!("starting a thread: {error}"));
                let _ = self.outbox.send(Request::Snapshot(Err(failed)));
            }
        }
    }

    /// After a failure nothing can be written any more; say so until the store is closed.
    fn refuse(&self, why: &str) {
        while let Ok(request) = self.inbox.recv() {
            let error = || Error::Unavailable(why.to_owned());
            let _ = match request {
                Request::Propose { reply, .. } | Request::Barrier(reply) => {
                    reply.send(Applied::Refused(error())).is_ok()
                }
                Request::Renew(_, reply) => reply.send(Err(error())).is_ok(),
                Request::Snapshot(_) => true,
                Request::Close => return,
            };
        }
    }
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Self::Propose { data, .. } => data.len(),
            _ => 0,
        }
    }
}
