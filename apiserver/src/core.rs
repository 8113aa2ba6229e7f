//! What every request shares.

use std::ops::Deref;
use std::sync::Arc;

use api::{Document, GroupResource, ObjectName, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Kind};
use crate::discovery::Documents;
use crate::entropy::Entropy;
use crate::hooks::Compiled;
use crate::metrics::Metrics;
use crate::parts::Parts;
use crate::perform::Outside;
use crate::perform::lease::Leases;
use crate::perform::turns::Turns;
use crate::rows::Registry;
use crate::server::Config;
use crate::view::View;

/// A handle on it.
#[derive(Clone)]
pub(crate) struct Core(Arc<Inner>);

/// All of it.
pub(crate) struct Inner {
    /// The configuration.
    pub config: Config,
    /// The caches.
    pub cache: Cache,
    /// The rows.
    pub registry: Registry,
    /// Identity, authorization, admission and so on.
    pub parts: Parts,
    /// True once the server is to stop.
    pub stop: watch::Sender<bool>,
    /// Connections and background work.
    pub tasks: TaskTracker,
    /// Room for requests that read.
    pub reads: Semaphore,
    /// Room for requests that write.
    pub writes: Semaphore,
    /// Discovery and OpenAPI documents, made when first wanted.
    pub documents: Documents,
    /// Leases of events.
    pub leases: Leases,
    /// The webhooks of the newest configurations.
    pub hooks: Compiled,
    /// The newest admission policies.
    pub policies: crate::policies::Compiled,
    /// Who may take from a quota next.
    pub turns: Turns,
    /// The way to webhooks.
    pub outside: Outside,
    /// Counters.
    pub metrics: Metrics,
    pub(crate) seeds: Mutex<Entropy>,
}

impl Core {
    /// From its parts.
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// The time now. The only place where a request's time comes from.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Randomness of its own for one request.
    pub(crate) fn entropy(&self) -> Entropy {
        Entropy::new(self.seeds.lock().next_u64())
    }

    /// The cache of a resource.
    pub(crate) fn kind(&self, resource: &GroupResource) -> Option<Arc<Kind>> {
        let rows = self.registry.current();
        let storage = rows.get(resource)?.storage.as_ref()?;
        self.cache.kind(&storage.prefix)
    }
}

impl Deref for Core {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl View for Core {
    fn get(&self, resource: &GroupResource, name: &ObjectName) -> Option<Document> {
        let rows = self.registry.current();
        let key = rows.get(resource)?.key(name)?;
        let item = self.kind(resource)?.get(key.as_bytes())?;
        Some(item.document())
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Document> {
        let rows = self.registry.current();
        let Some(prefix) = rows.get(resource).and_then(|row| row.key_prefix(namespace.unwrap_or_default())) else {
            return Vec::new();
        };
        let items = self.kind(resource).map(|kind| kind.list(&prefix).0).unwrap_or_default();
        items.iter().map(|item| item.document()).collect()
    }

    fn list_by(&self, resource: &GroupResource, namespace: Option<&str>, field: &str, value: &str) -> Vec<Document> {
        let rows = self.registry.current();
        let Some(prefix) = rows.get(resource).and_then(|row| row.key_prefix(namespace.unwrap_or_default())) else {
            return Vec::new();
        };
        let Some(kind) = self.kind(resource) else { return Vec::new() };
        let found = kind.find(field, value, &prefix).unwrap_or_else(|| kind.list(&prefix));
        let items = found.0.iter().filter(|item| item.field(field) == Some(value));
        items.map(|item| item.document()).collect()
    }

    fn revision(&self, resource: &GroupResource) -> u64 {
        self.kind(resource).map_or(0, |kind| kind.revision())
    }
}
