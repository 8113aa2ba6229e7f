//! Lists and watches of the API server as events and as a shared cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use api::ObjectName;
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::Resource;
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

/// First and longest wait before a broken list or watch is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Event<K> {
    /// All objects there are, at the beginning and after a gap.
    Listed(Vec<K>),
    /// Added or changed.
    Applied(K),
    /// Deleted.
    Deleted(K),
}

/// Watches until the receiver is dropped. Starts over with a list when the API server asks for it or the connection
/// breaks.
pub(crate) async fn watch<K>(api: Api<K>, fields: Option<String>, out: mpsc::Sender<Event<K>>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut wait = RETRY_FIRST;
    while !out.is_closed() {
        if let Err(error) = follow(&api, fields.as_deref(), &out, &mut wait).await {
            tracing::debug!(%error, kind = std::any::type_name::<K>(), "watch");
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_MAX),
                () = out.closed() => {}
            }
        }
    }
}

/// One list and the watches that go on from it.
async fn follow<K>(
    api: &Api<K>,
    fields: Option<&str>,
    out: &mpsc::Sender<Event<K>>,
    wait: &mut Duration,
) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut list = ListParams::default();
    let mut params = WatchParams::default().timeout(290);
    list.field_selector = fields.map(Into::into);
    params.field_selector = fields.map(Into::into);
    let listed = api.list(&list).await?;
    *wait = RETRY_FIRST;
    let mut version = listed.metadata.resource_version.unwrap_or_default();
    if out.send(Event::Listed(listed.items)).await.is_err() {
        return Ok(());
    }
    while !out.is_closed() {
        let mut events = api.watch(&params, &version).await?.boxed();
        loop {
            let next = tokio::select! { next = events.try_next() => next?, () = out.closed() => return Ok(()) };
            let Some(event) = next else { break };
            let told = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => Event::Applied(object),
                WatchEvent::Deleted(object) => Event::Deleted(object),
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(_) => return Ok(()),
            };
            let (Event::Applied(object) | Event::Deleted(object)) = &told else { continue };
            version = object.meta().resource_version.clone().unwrap_or(version);
            if out.send(told).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// All objects of a watch, shared. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    objects: Arc<RwLock<Objects<K>>>,
    /// Counts changes; 0 until the first list is in.
    version: watch::Receiver<u64>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { objects: self.objects.clone(), version: self.version.clone() }
    }
}

#[derive(Debug)]
struct Objects<K> {
    all: BTreeMap<ObjectName, Arc<K>>,
    /// The names of those that have changed since somebody took them; `None` while nobody ever did.
    changed: Option<BTreeSet<ObjectName>>,
}

impl<K> Cache<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Starts to watch on a task that ends with the last clone of the version's receiver.
    pub(crate) fn start(api: Api<K>, tasks: &mut tokio::task::JoinSet<()>) -> Self {
        let objects = Arc::new(RwLock::new(Objects { all: BTreeMap::new(), changed: None }));
        let (changed, version) = watch::channel(0);
        let (out, mut events) = mpsc::channel(64);
        tasks.spawn(watch(api, None, out));
        let cache = Self { objects, version };
        let objects = cache.objects.clone();
        tasks.spawn(async move {
            while let Some(event) = events.recv().await {
                apply(&mut objects.write(), event);
                changed.send_modify(|v| *v += 1);
            }
        });
        cache
    }

    /// Every object, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.objects.read().all.values().cloned().collect()
    }

    /// What has changed since the last call, as it is now (`None`: gone); at first, every object. One taker a cache.
    pub(crate) fn take_changed(&self) -> Vec<(ObjectName, Option<Arc<K>>)> {
        let mut objects = self.objects.write();
        let names = match objects.changed.replace(BTreeSet::new()) {
            Some(names) => names,
            None => objects.all.keys().cloned().collect(),
        };
        names
            .into_iter()
            .map(|name| (objects.all.get(&name).cloned(), name))
            .map(|(object, name)| (name, object))
            .collect()
    }

    /// Waits until the first list is in.
    pub(crate) async fn synced(&self) {
        let _ = self.version.clone().wait_for(|v| *v > 0).await;
    }

    /// Tells of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }
}

fn apply<K: Resource>(objects: &mut Objects<K>, event: Event<K>) {
    let Objects { all, changed } = objects;
    let mut touch = |name: &ObjectName| {
        changed.iter_mut().for_each(|names| {
            names.insert(name.clone());
        });
    };
    match event {
        Event::Listed(list) => {
            all.keys().for_each(&mut touch);
            *all = list.into_iter().map(|object| (name_of(&object), Arc::new(slim(object)))).collect();
            all.keys().for_each(touch);
        }
        Event::Applied(object) => {
            touch(&name_of(&object));
            all.insert(name_of(&object), Arc::new(slim(object)));
        }
        Event::Deleted(object) => {
            touch(&name_of(&object));
            all.remove(&name_of(&object));
        }
    }
}

/// Nobody here asks who wrote which field, and that is half of an object.
fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

/// Namespace and name.
pub(crate) fn name_of<K: Resource>(object: &K) -> ObjectName {
    let meta = object.meta();
    ObjectName { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn a_taker_hears_of_each_change_once() {
        let objects = Arc::new(RwLock::new(Objects { all: BTreeMap::new(), changed: None }));
        let cache = Cache { objects, version: watch::channel(0).1 };
        let map = |name: &str| {
            let mut map = ConfigMap::default();
            map.metadata.name = Some(name.into());
            map
        };
        let tell = |event| apply(&mut cache.objects.write(), event);
        let taken = || {
            let changed = cache.take_changed().into_iter();
            changed
                .map(|(name, map)| format!("{}{}", if map.is_some() { "+" } else { "-" }, name.name))
                .collect::<Vec<_>>()
        };
        tell(Event::Listed(vec![map("a"), map("b")]));
        assert_eq!(taken(), ["+a", "+b"]);
        assert!(taken().is_empty());
        tell(Event::Applied(map("a")));
        tell(Event::Applied(map("a")));
        tell(Event::Deleted(map("b")));
        assert_eq!(taken(), ["+a", "-b"]);
        tell(Event::Listed(vec![map("c")]));
        assert_eq!(taken(), ["-a", "+c"], "what a gap has swallowed is gone");
    }
}
