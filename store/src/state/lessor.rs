//! When leases end. Only the one who decides about expiry (the leader) has one; time is handed in. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::LeaseId;

/// Deadlines of leases on a monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Lessor {
    deadlines: BTreeMap<LeaseId, Duration>,
    order: BTreeSet<(Duration, LeaseId)>,
}

impl Lessor {
    /// Lets `lease` live for `ttl_seconds` from `now`.
    pub(crate) fn renew(&mut self, lease: LeaseId, ttl_seconds: i64, now: Duration) {
        self.forget(lease);
        let deadline = now + Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or(0));
        self.deadlines.insert(lease, deadline);
        self.order.insert((deadline, lease));
    }

    /// The lease is gone.
    pub(crate) fn forget(&mut self, lease: LeaseId) {
        if let Some(deadline) = self.deadlines.remove(&lease) {
            self.order.remove(&(deadline, lease));
        }
    }

    /// Takes out the leases that have ended.
    pub(crate) fn expired(&mut self, now: Duration) -> Vec<LeaseId> {
        let mut ended = Vec::new();
        while let Some((deadline, lease)) = self.order.pop_first() {
            if deadline > now {
                self.order.insert((deadline, lease));
                break;
            }
            self.deadlines.remove(&lease);
            ended.push(lease);
        }
        ended
    }

    /// When the next lease ends.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.order.first().map(|(deadline, _)| *deadline)
    }
}
