//! ConfigMaps and Secrets that pods refer to: one watch an object, kept while some pod holds it. A node may read
//! single objects only, so there is no wider watch to share.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Weak};
use std::time::Duration;

use api::ObjectName;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::Api;
use kube::core::Resource;
use node_plan::env::Sources as Values;
use node_plan::volumes::{Needs, needs};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use crate::watch::{Event, watch as follow};

/// How long a pod waits for the first answer about an object.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// An object under watch: `None` until the first answer, then whether it is there.
type State<K> = Option<Option<Arc<K>>>;

/// One watched object. The watch ends with it.
#[derive(Debug)]
pub(crate) struct Held<K> {
    state: watch::Receiver<State<K>>,
    task: tokio::task::AbortHandle,
}

impl<K> Drop for Held<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shelf<K> = Mutex<HashMap<ObjectName, Weak<Held<K>>>>;

/// The watched objects of all pods.
pub(crate) struct Sources {
    client: kube::Client,
    config_maps: Shelf<ConfigMap>,
    secrets: Shelf<Secret>,
}

/// What one pod holds.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    config_maps: Vec<(String, Arc<Held<ConfigMap>>)>,
    secrets: Vec<(String, Arc<Held<Secret>>)>,
}

impl Sources {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    /// Holds everything that a pod refers to.
    pub(crate) fn hold(&self, pod: &Pod) -> Hold {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let Needs { config_maps, secrets } = needs(pod);
        Hold {
            config_maps: config_maps
                .into_iter()
                .map(|n| (n.clone(), self.one(&self.config_maps, &namespace, n)))
                .collect(),
            secrets: secrets.into_iter().map(|n| (n.clone(), self.one(&self.secrets, &namespace, n))).collect(),
        }
    }

    fn one<K>(&self, shelf: &Shelf<K>, namespace: &str, name: String) -> Arc<Held<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default,
    {
        let mut shelf = shelf.lock();
        let key = ObjectName { namespace: namespace.into(), name };
        if let Some(held) = shelf.get(&key).and_then(Weak::upgrade) {
            return held;
        }
        shelf.retain(|_, held| held.strong_count() > 0);
        let held = Arc::new(begin(Api::namespaced(self.client.clone(), namespace), &key.name));
        shelf.insert(key, Arc::downgrade(&held));
        held
    }
}

fn begin<K>(api: Api<K>, name: &str) -> Held<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (change, state) = watch::channel(None);
    let (out, mut events) = mpsc::channel(8);
    let only = format!("metadata.name={name}");
    let task = tokio::spawn(async move {
        let watch = follow(api, Some(only), out);
        let take = async {
            while let Some(event) = events.recv().await {
                let object = match event {
                    Event::Listed(list) => list.into_iter().next().map(Arc::new),
                    Event::Applied(object) => Some(Arc::new(object)),
                    Event::Deleted(_) => None,
                };
                change.send_replace(Some(object));
            }
        };
        tokio::join!(watch, take);
    });
    Held { state, task: task.abort_handle() }
}

impl Hold {
    /// The objects as they are now; waits for the first answer about each.
    pub(crate) async fn values(&self) -> Values {
        let mut values = Values::default();
        for (name, held) in &self.config_maps {
            if let Some(map) = first(&held.state).await {
                values.config_maps.insert(name.clone(), ConfigMap::clone(&map));
            }
        }
        for (name, held) in &self.secrets {
            if let Some(secret) = first(&held.state).await {
                values.secrets.insert(name.clone(), Secret::clone(&secret));
            }
        }
        values
    }

    /// Sends on `notify` whenever one of the objects changes, until the task is dropped.
    pub(crate) fn follow(&self, notify: &Arc<tokio::sync::Notify>) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for (_, held) in &self.config_maps {
            tasks.spawn(tell(held.state.clone(), notify.clone()));
        }
        for (_, held) in &self.secrets {
            tasks.spawn(tell(held.state.clone(), notify.clone()));
        }
        tasks
    }
}

async fn first<K>(state: &watch::Receiver<State<K>>) -> Option<Arc<K>> {
    let mut state = state.clone();
    let answer = tokio::time::timeout(FIRST_ANSWER, state.wait_for(Option::is_some)).await;
    answer.ok().and_then(Result::ok).and_then(|state| state.clone().flatten())
}

/// The first answer is no change.
async fn tell<K>(mut state: watch::Receiver<State<K>>, notify: Arc<tokio::sync::Notify>) {
    if state.wait_for(Option::is_some).await.is_err() {
        return;
    }
    state.mark_unchanged();
    while state.changed().await.is_ok() {
        notify.notify_one();
    }
}
