//! What all parts of one driver share: the client, the World, and who wants to hear of changes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use reconcile::controller::{Parse, names};
use reconcile::{Change, Failure, Resource, Selection, Timestamp, Watch, World};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};

use crate::Config;
use crate::events::Recorder;

/// Requests under way at once, of all deciders together.
const REQUESTS: usize = 64;

/// Somebody who is told every change of what it watches, in order.
pub(crate) trait Sink: Send + Sync {
    /// What it watches.
    fn watches(&self) -> &[Watch];
    /// Called under the World's lock: short and without waiting.
    fn observe(&self, change: &Change, world: &World, now: Timestamp);
}

/// How objects of a resource are read.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) parse: Parse,
    pub(crate) metadata_only: bool,
    /// Fields that no decider keeps.
    pub(crate) drops: Vec<&'static str>,
}

pub(crate) struct Shared {
    pub(crate) client: kube::Client,
    pub(crate) config: Config,
    pub(crate) recorder: Recorder,
    pub(crate) requests: Semaphore,
    /// Discovery should be read again.
    pub(crate) rediscover: Notify,
    world: RwLock<World>,
    readings: RwLock<HashMap<Resource, Reading>>,
    sinks: Vec<Arc<dyn Sink>>,
    progress: watch::Sender<Progress>,
}

/// How far the first lists have come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    tables: u64,
    everything: bool,
}

impl Shared {
    pub(crate) fn new(client: kube::Client, config: Config, sinks: Vec<Arc<dyn Sink>>, recorder: Recorder) -> Self {
        Self {
            client,
            config,
            recorder,
            requests: Semaphore::new(REQUESTS),
            rediscover: Notify::new(),
            world: RwLock::default(),
            readings: RwLock::default(),
            sinks,
            progress: watch::Sender::default(),
        }
    }

    /// All watches of all deciders.
    pub(crate) fn watches(&self) -> impl Iterator<Item = &Watch> {
        self.sinks.iter().flat_map(|s| s.watches())
    }

    /// The World, to decide on.
    pub(crate) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The World, for what is not a change of objects.
    pub(crate) fn world_mut(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the World and tells everybody, in one step, so that all hear changes in the same order.
    pub(crate) fn apply<I: IntoIterator<Item = Change>>(&self, change: impl FnOnce(&mut World, Timestamp) -> I) {
        let now = Timestamp::now();
        let mut world = self.world_mut();
        for change in change(&mut world, now) {
            self.tell(&change, &world, now);
        }
    }

    fn tell(&self, change: &Change, world: &World, now: Timestamp) {
        let covering = |s: &&Arc<dyn Sink>| s.watches().iter().any(|w| w.covers(&change.resource));
        for sink in self.sinks.iter().filter(covering) {
            sink.observe(change, world, now);
        }
        if self.watches().any(|w| renews(w, &change.resource)) {
            self.rediscover.notify_one();
        }
    }

    /// Begins to keep a resource; the union of what the watches that cover it want.
    pub(crate) fn keep(&self, resource: &Resource) -> Reading {
        let covering: Vec<&Watch> = self.watches().filter(|w| w.covers(resource)).collect();
        for watch in &covering {
            self.world_mut().keep(resource, watch.indexes);
        }
        let whole: Vec<&&Watch> = covering.iter().filter(|w| !w.metadata_only).collect();
        let reading = match whole.as_slice() {
            [] => Reading { parse: Watch::metadata_of(resource.clone()).parse, metadata_only: true, drops: Vec::new() },
            [first, rest @ ..] => Reading {
                parse: first.parse,
                metadata_only: false,
                drops: first.drops.iter().copied().filter(|d| rest.iter().all(|w| w.drops.contains(d))).collect(),
            },
        };
        self.readings.write().unwrap_or_else(PoisonError::into_inner).insert(resource.clone(), reading.clone());
        reading
    }

    /// How a kept resource is read.
    pub(crate) fn reading(&self, resource: &Resource) -> Option<Reading> {
        self.readings.read().unwrap_or_else(PoisonError::into_inner).get(resource).cloned()
    }

    /// A first list has come, or will not come.
    pub(crate) fn progress(&self) {
        self.progress.send_modify(|p| p.tables += 1);
    }

    /// The first lists of everything that discovery knew at the start have come.
    pub(crate) fn everything_listed(&self) {
        self.progress.send_modify(|p| p.everything = true);
    }

    /// Waits until the first lists of all these watches have come.
    pub(crate) async fn synced(&self, watches: &[Watch]) {
        let mut progress = self.progress.subscribe();
        loop {
            let everything = progress.borrow_and_update().everything;
            let done = |w: &Watch| match &w.selection {
                Selection::One(resource) => self.world().synced(resource),
                Selection::Everything { .. } => everything,
            };
            if watches.iter().all(done) || progress.changed().await.is_err() {
                return;
            }
        }
    }
}

fn renews(watch: &Watch, resource: &Resource) -> bool {
    matches!(&watch.selection, Selection::Everything { renewed_by, .. } if names(renewed_by, resource))
}

impl Reading {
    /// Reads one object, without the fields that nobody keeps.
    pub(crate) fn read(&self, bytes: &[u8]) -> Result<Arc<dyn reconcile::Object>, Failure> {
        let whole = || if self.drops.is_empty() { (self.parse)(bytes) } else { self.read_again(bytes, false) };
        let read = whole().or_else(|_| self.read_again(bytes, true));
        read.map_err(|e| Failure { code: 0, reason: "Unreadable".into(), message: e.to_string() })
    }

    fn read_again(&self, bytes: &[u8], no_nulls: bool) -> Result<Arc<dyn reconcile::Object>, serde_json::Error> {
        let mut document = api::Document::parse(bytes)?;
        for pointer in &self.drops {
            document.remove(pointer);
        }
        if no_nulls {
            mend_nulls(document.value_mut());
        }
        (self.parse)(&document.to_bytes())
    }
}

/// Where Go writes null for a zero, our types want nothing, or a time where there must be one: in conditions.
fn mend_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(time @ Value::Null) = map.get_mut("lastTransitionTime") {
                *time = "0001-01-01T00:00:00Z".into();
            }
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(mend_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(mend_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use reconcile::Watch;

    use super::Reading;

    #[test]
    fn a_null_is_as_good_as_nothing() {
        let Watch { parse, metadata_only, .. } = Watch::of::<Service>();
        let bytes = br#"{"metadata": {"name": "a"}, "status": {"loadBalancer": null,
            "conditions": [{"type": "T", "status": "True", "lastTransitionTime": null, "reason": "R", "message": ""}]}}"#;
        for drops in [Vec::new(), vec!["/spec"]] {
            let reading = Reading { parse, metadata_only, drops };
            assert_eq!(reading.read(bytes).expect("a service").metadata().name.as_deref(), Some("a"));
            assert!(reading.read(br#"{"metadata": []}"#).is_err());
        }
    }
}
