//! The store that lives in memory only: for tests and simulation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::served::{Served, check};
use crate::state::{Applied, Command, Lessor, State};
use crate::{Commit, Error, LeaseId, Page, Range, Revision, Store, Txn, Watch};

/// Tells the time that has passed since some fixed moment.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A store in memory. Clones share one content.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Inner>,
}

struct Inner {
    served: Served,
    lessor: Mutex<Lessor>,
    clock: Clock,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store on the machine's monotonic clock.
    pub fn new() -> Self {
        let start = Instant::now();
        Self::with_clock(Arc::new(move || start.elapsed()))
    }

    /// An empty store whose leases run on `clock`.
    pub fn with_clock(clock: Clock) -> Self {
        let served = Served::new(State::default());
        Self { inner: Arc::new(Inner { served, lessor: Mutex::default(), clock }) }
    }

    /// Ends the leases whose time is over. Every call of the store does this first; who moves the clock by hand and
    /// only watches calls it after moving.
    pub fn tick(&self) {
        let ended = self.inner.lessor.lock().expired((self.inner.clock)());
        if !ended.is_empty() {
            self.inner.served.apply(ended.into_iter().map(|lease| Command::LeaseRevoke { lease }));
        }
    }

    /// When the next lease ends, on the store's clock.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.inner.lessor.lock().next()
    }

    fn apply(&self, command: Command) -> Result<Applied, Error> {
        self.tick();
        match self.inner.served.apply([command]).pop() {
            Some(Applied::Refused(error)) => Err(error),
            Some(applied) => Ok(applied),
            None => Err(Error::Unavailable("nothing was applied".to_owned())),
        }
    }

    fn renew(&self, lease: LeaseId) -> Result<(), Error> {
        let ttl = self.inner.served.read(|s| s.lease_ttl(lease)).ok_or(Error::LeaseNotFound(lease))?;
        self.inner.lessor.lock().renew(lease, ttl, (self.inner.clock)());
        Ok(())
    }
}

#[async_trait]
impl Store for Memory {
    async fn commit(&self, txn: Txn) -> Result<Commit, Error> {
        check(&txn)?;
        self.apply(Command::Txn(txn))?.commit()
    }

    async fn range(&self, range: Range) -> Result<Page, Error> {
        self.tick();
        self.inner.served.range(&range)
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.tick();
        Ok(self.inner.served.read(State::revision))
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Watch, Error> {
        self.tick();
        self.inner.served.watch(prefix, from)
    }

    async fn progress(&self) -> Result<(), Error> {
        self.tick();
        self.inner.served.progress();
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.apply(Command::Compact { revision }).map(|_| ())
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, Error> {
        let lease = self.apply(Command::LeaseGrant { ttl_seconds })?.granted()?;
        self.renew(lease)?;
        Ok(lease)
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), Error> {
        self.tick();
        self.renew(lease)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.apply(Command::LeaseRevoke { lease })?;
        self.inner.lessor.lock().forget(lease);
        Ok(())
    }
}
