//! Leases of objects that end by themselves: one for all that are written within a minute, as upstream shares them.

use std::time::Duration;

use store::{Error, LeaseId, Store};
use tokio::sync::Mutex;
use tokio::time::Instant;

const SHARED_FOR: Duration = Duration::from_secs(60);

/// The lease that is being given out.
#[derive(Default)]
pub(crate) struct Leases(Mutex<Option<(LeaseId, Instant)>>);

impl Leases {
    /// A lease that ends `ttl` from now, or up to a minute later.
    pub(crate) async fn current(&self, store: &dyn Store, ttl: Duration) -> Result<LeaseId, Error> {
        let mut current = self.0.lock().await;
        if let Some((lease, granted)) = *current
            && granted.elapsed() < SHARED_FOR
        {
            return Ok(lease);
        }
        let seconds = i64::try_from((ttl + SHARED_FOR).as_secs()).unwrap_or(i64::MAX);
        let lease = store.lease_grant(seconds).await?;
        *current = Some((lease, Instant::now()));
        Ok(lease)
    }
}
