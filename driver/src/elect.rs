//! One of many: a Lease that its holder renews, and that another takes when it has not moved for its duration by
//! the other's own clock (`client-go/tools/leaderelection`).

use std::time::Duration;

use http::Method;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use rand::RngExt;
use reconcile::{Failure, ObjectName, Resource, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::request::{self, Form};

/// The Lease to hold.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Lease {
    pub namespace: String,
    pub name: String,
    /// Who we are; unique among those who want the Lease.
    pub identity: String,
    /// After how long without renewal others may take it.
    pub duration: Duration,
    /// For how long a holder tries to renew before it gives up; less than `duration`.
    pub deadline: Duration,
    /// The wait between tries.
    pub retry: Duration,
}

impl Lease {
    /// Upstream's times: 15 s, 10 s, 2 s.
    pub fn new(name: &str, identity: &str) -> Self {
        Self {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }

    fn path(&self) -> String {
        let name = ObjectName { namespace: self.namespace.clone(), name: self.name.clone() };
        request::object(&Resource::of::<Object>(), &name, "")
    }
}

/// What was last seen of the Lease, and when by our clock.
#[derive(Default)]
struct Seen {
    object: Option<Object>,
    at: Option<tokio::time::Instant>,
}

impl Seen {
    fn note(&mut self, object: Option<Object>) {
        let version = |o: &Option<Object>| o.as_ref().and_then(|o| o.metadata.resource_version.clone());
        if self.at.is_none() || version(&self.object) != version(&object) {
            self.at = Some(tokio::time::Instant::now());
        }
        self.object = object;
    }

    /// Whether somebody else holds it and it is not yet stale.
    fn held_by_other(&self, lease: &Lease) -> bool {
        let Some(spec) = self.object.as_ref().and_then(|o| o.spec.as_ref()) else { return false };
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(lease.duration, Duration::from_secs);
        !holder.is_empty() && holder != lease.identity && self.at.is_some_and(|at| at.elapsed() < duration)
    }
}

/// A Lease that we hold.
pub(crate) struct Held {
    lease: Lease,
    seen: Seen,
}

/// Waits until we hold the Lease; `None` if told to stop before.
pub(crate) async fn acquire(client: &kube::Client, lease: &Lease, shutdown: &CancellationToken) -> Option<Held> {
    let mut seen = Seen::default();
    loop {
        match attempt(client, lease, &mut seen).await {
            Ok(true) => return Some(Held { lease: lease.clone(), seen }),
            Ok(false) => {}
            Err(failure) => tracing::debug!(lease = lease.name, message = failure.message, "not acquired"),
        }
        let wait = lease.retry.mul_f64(rand::rng().random_range(1.0..2.2));
        tokio::select! { () = tokio::time::sleep(wait) => {}, () = shutdown.cancelled() => return None }
    }
}

/// One try to take or renew it.
async fn attempt(client: &kube::Client, lease: &Lease, seen: &mut Seen) -> Result<bool, Failure> {
    let current = read(client, lease).await?;
    seen.note(current);
    if seen.held_by_other(lease) {
        return Ok(false);
    }
    let ours = renewed(lease, seen.object.clone(), Timestamp::now());
    let (method, path) = match seen.object {
        Some(_) => (Method::PUT, lease.path()),
        None => (Method::POST, request::collection(&Resource::of::<Object>(), &lease.namespace)),
    };
    seen.note(Some(write(client, method, &path, &ours).await?));
    Ok(true)
}

fn renewed(lease: &Lease, current: Option<Object>, now: Timestamp) -> Object {
    let mut object = current.unwrap_or_default();
    object.metadata.name = Some(lease.name.clone());
    object.metadata.namespace = Some(lease.namespace.clone());
    let spec = object.spec.get_or_insert_with(LeaseSpec::default);
    if spec.holder_identity.as_deref() != Some(&lease.identity) {
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1)));
        spec.acquire_time = Some(MicroTime(now));
        spec.holder_identity = Some(lease.identity.clone());
    }
    spec.lease_duration_seconds = i32::try_from(lease.duration.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    object
}

async fn read(client: &kube::Client, lease: &Lease) -> Result<Option<Object>, Failure> {
    match client.request(request::get(&lease.path(), Form::Whole)?).await.map_err(request::failure) {
        Ok(object) => Ok(Some(object)),
        Err(failure) if failure.code == 404 => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn write(client: &kube::Client, method: Method, path: &str, object: &Object) -> Result<Object, Failure> {
    let unreadable = |e: serde_json::Error| Failure { code: 0, reason: "Unreadable".into(), message: e.to_string() };
    let body = serde_json::to_value(object).map_err(unreadable)?;
    client.request(request::send(method, path, "application/json", &body)?).await.map_err(request::failure)
}

impl Held {
    /// Renews until the Lease is lost (returns) or the holder is told to stop (returns too).
    pub(crate) async fn lost(&mut self, client: &kube::Client, stop: &CancellationToken) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::select! { () = tokio::time::sleep(self.lease.retry) => {}, () = stop.cancelled() => std::future::pending().await }
            let tried = tokio::time::timeout(self.lease.deadline, attempt(client, &self.lease, &mut self.seen)).await;
            match tried {
                Ok(Ok(true)) => renewed = tokio::time::Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(_)) | Err(_) if renewed.elapsed() < self.lease.deadline => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Gives it back, so that another need not wait.
    pub(crate) async fn release(self, client: &kube::Client) {
        let Some(mut object) = self.seen.object else { return };
        let now = Timestamp::now();
        if let Some(spec) = &mut object.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(now));
        }
        let path = self.lease.path();
        let released = write(client, Method::PUT, &path, &object);
        match tokio::time::timeout(Duration::from_secs(2), released).await {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => tracing::debug!(message = failure.message, "the lease could not be given back"),
            Err(_) => tracing::debug!("the lease could not be given back in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use reconcile::Timestamp;

    use super::{Lease, Seen, renewed};

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_only_when_it_stands_still_by_our_clock() {
        let (mine, theirs) = (Lease::new("l", "me"), Lease::new("l", "they"));
        let mut seen = Seen::default();
        let mut object = renewed(&theirs, None, Timestamp::UNIX_EPOCH);
        object.metadata.resource_version = Some("1".into());
        seen.note(Some(object.clone()));
        tokio::time::advance(std::time::Duration::from_secs(14)).await;
        assert!(seen.held_by_other(&mine));
        object.metadata.resource_version = Some("2".into());
        seen.note(Some(object.clone()));
        tokio::time::advance(std::time::Duration::from_secs(14)).await;
        assert!(seen.held_by_other(&mine));
        seen.note(Some(object.clone()));
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        assert!(!seen.held_by_other(&mine));
        let taken = renewed(&mine, Some(object), Timestamp::UNIX_EPOCH).spec.unwrap();
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("me"), Some(1)));
    }
}
