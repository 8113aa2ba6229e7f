//! The agent as a whole: its parts, and one worker for each pod bound to the node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;

use api::Timestamp;
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use network::Network;
use node_plan::observed::Verdict;
use node_plan::pressure::Resource;
use node_plan::{NodeFacts, Observed};
use parking_lot::RwLock;
use runtime_image::Store;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::memory::{Memory, load_all};
use crate::record::Recorder;
use crate::sources::Sources;
use crate::users::Ranges;
use crate::watch::{Cache, Event, watch as follow};
use crate::worker::{self, View};
use crate::{Config, Error, Result, chain, images, node, pressure, routes, server};

/// Evictions that wait: one at a time is decided.
const EVICTIONS: usize = 1;

/// What all parts of an agent share.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) facts: NodeFacts,
    pub(crate) images: Arc<Store>,
    pub(crate) users: Arc<Ranges>,
    pub(crate) network: watch::Receiver<Option<Arc<Network>>>,
    pub(crate) recorder: Recorder,
    pub(crate) sources: Sources,
    pub(crate) services: Cache<Service>,
    pub(crate) slices: Cache<EndpointSlice>,
    pub(crate) nodes: Cache<NodeObject>,
    /// The pods bound here, as last seen, by uid.
    pub(crate) pods: watch::Sender<BTreeMap<String, Arc<Pod>>>,
    /// The node's memory, in bytes.
    pub(crate) memory_bytes: i64,
    /// Allocatable amounts as text, for the downward API and admission.
    pub(crate) allocatable: BTreeMap<String, String>,
    /// What the node is short of.
    pub(crate) pressure: watch::Sender<Vec<Resource>>,
    /// The node's object, once it is registered.
    pub(crate) object: Arc<RwLock<Option<NodeObject>>>,
}

/// Runs the agent until `shutdown` ends. Containers keep running; the next agent adopts them.
///
/// Fails only where it cannot begin: an unusable data directory or image store. The API server may be away at any time.
pub async fn run(client: Client, config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
    let mut tasks = JoinSet::new();
    let (opened, network) = watch::channel(None);
    let agent = Arc::new(build(client, config, network, &mut tasks)?);
    tasks.spawn(preload(agent.clone()));
    tasks.spawn(node::keep(agent.clone()));
    tasks.spawn(node::heartbeat(agent.clone()));
    tasks.spawn(routes::run(agent.clone(), opened));
    tasks.spawn(server::run(agent.clone()));
    tasks.spawn(images::keep_room(agent.clone()));
    let (evict, evictions) = mpsc::channel(EVICTIONS);
    tasks.spawn(pressure::watch(agent.clone(), evict));
    let pods = tokio::spawn(pods(agent.clone(), evictions));
    shutdown.await;
    // Workers and their tasks end where they stand: each step can be begun again.
    pods.abort();
    tasks.shutdown().await;
    Ok(())
}

fn build(
    client: Client,
    config: Config,
    network: watch::Receiver<Option<Arc<Network>>>,
    tasks: &mut JoinSet<()>,
) -> Result<Agent> {
    for dir in [config.data_dir.join("pods"), config.run_dir.join("pods"), config.log_dir.clone()] {
        crate::memory::private_dir(&dir).map_err(|error| Error::Io(dir.display().to_string(), error))?;
    }
    let images = Arc::new(Store::open(&config.images_dir)?);
    let users = Ranges::open(&config.data_dir).map_err(|error| Error::Io("ranges of user ids".into(), error))?;
    let capacity = node::Capacity::read(&config);
    Ok(Agent {
        facts: NodeFacts { name: config.node_name.clone(), ips: config.node_ips.clone() },
        recorder: Recorder::start(client.clone(), &config.node_name, tasks),
        sources: Sources::new(client.clone()),
        services: Cache::start(Api::all(client.clone()), tasks),
        slices: Cache::start(Api::all(client.clone()), tasks),
        nodes: Cache::start(Api::all(client.clone()), tasks),
        pods: watch::channel(BTreeMap::new()).0,
        memory_bytes: capacity.memory_bytes,
        allocatable: capacity.amounts(&config),
        pressure: watch::channel(Vec::new()).0,
        object: Arc::default(),
        images,
        users: Arc::new(users),
        network,
        client,
        config,
    })
}

/// Imports what lies in the preload directory.
async fn preload(agent: Arc<Agent>) {
    let Some(dir) = agent.config.preload_dir.clone() else { return };
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        let (images, path) = (agent.images.clone(), entry.path());
        let shown = path.display().to_string();
        let done = crate::blocking(move || images.import(&path, None).map_err(|error| chain(&error))).await;
        match done {
            Ok(images) => tracing::info!(path = shown, images = images.len(), "imported"),
            Err(error) => tracing::warn!(path = shown, error, "not imported"),
        }
    }
}

/// The workers, by the pod's uid.
struct Workers {
    agent: Arc<Agent>,
    views: HashMap<String, watch::Sender<View>>,
    running: JoinSet<String>,
    /// Pods whose workers are done while the API server still shows them (a finalizer holds them).
    finished: BTreeSet<String>,
    remembered: HashMap<String, Memory>,
}

/// Follows the pods that are bound here.
async fn pods(agent: Arc<Agent>, mut evictions: mpsc::Receiver<pressure::Eviction>) {
    let remembered = load_all(&agent.config.data_dir.join("pods"));
    let remembered = remembered.into_iter().filter_map(|m| Some((m.pod.metadata.uid.clone()?, m))).collect();
    let (views, running, finished) = (HashMap::new(), JoinSet::new(), BTreeSet::new());
    let mut workers = Workers { agent: agent.clone(), views, running, finished, remembered };
    let (out, mut events) = mpsc::channel(64);
    let bound = format!("spec.nodeName={}", agent.config.node_name);
    let watch = tokio::spawn(follow(Api::<Pod>::all(agent.client.clone()), Some(bound), out));
    let _watch = AbortOnDrop(watch.abort_handle());
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => workers.take(event),
                None => return,
            },
            Some((uid, verdict)) = evictions.recv() => workers.evict(&uid, verdict),
            Some(done) = workers.running.join_next() => workers.ended(done),
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Workers {
    fn take(&mut self, event: Event<Pod>) {
        match event {
            Event::Listed(pods) => self.listed(pods),
            Event::Applied(pod) => self.applied(pod),
            Event::Deleted(pod) => self.deleted(pod),
        }
    }

    /// What is remembered or runs but is no longer listed is gone.
    fn listed(&mut self, pods: Vec<Pod>) {
        let there: BTreeSet<String> = pods.iter().filter_map(|p| p.metadata.uid.clone()).collect();
        for pod in pods {
            self.applied(pod);
        }
        let known: Vec<Pod> = self.agent.pods.borrow().values().map(|p| Pod::clone(p)).collect();
        for pod in known.into_iter().filter(|p| p.metadata.uid.as_ref().is_none_or(|uid| !there.contains(uid))) {
            self.deleted(pod);
        }
        for (uid, memory) in std::mem::take(&mut self.remembered) {
            if !there.contains(&uid) {
                self.start(&uid, memory.pod, Some(memory.seen), true);
            }
        }
    }

    fn applied(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        self.agent.pods.send_modify(|pods| {
            pods.insert(uid.clone(), Arc::new(pod.clone()));
        });
        match self.views.get(&uid) {
            Some(view) => {
                view.send_modify(|view| view.pod = Arc::new(pod));
            }
            None if self.finished.contains(&uid) => {}
            None => {
                let seen = self.remembered.remove(&uid).map(|memory| memory.seen);
                if seen.is_some() || !idle(&pod) {
                    self.start(&uid, pod, seen, false);
                }
            }
        }
    }

    fn evict(&mut self, uid: &str, verdict: Verdict) {
        if let Some(view) = self.views.get(uid) {
            view.send_modify(|view| view.evicted = Some(verdict));
        }
    }

    fn deleted(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        self.agent.pods.send_modify(|pods| {
            pods.remove(&uid);
        });
        self.finished.remove(&uid);
        if let Some(view) = self.views.get(&uid) {
            view.send_modify(|view| (view.pod, view.gone) = (Arc::new(pod), true));
        }
    }

    fn start(&mut self, uid: &str, pod: Pod, seen: Option<Observed>, gone: bool) {
        let now = Timestamp::now();
        let adopted = seen.is_some();
        let mut seen = seen.unwrap_or_else(|| Observed::new(now));
        seen.adopt();
        if !adopted && pod.metadata.deletion_timestamp.is_none() {
            seen.verdict = self.admit(&pod);
        }
        let (view, views) = watch::channel(View { pod: Arc::new(pod), gone, evicted: None });
        self.views.insert(uid.into(), view);
        let (agent, uid) = (self.agent.clone(), uid.to_owned());
        self.running.spawn(async move {
            worker::run(agent, views, seen, adopted).await;
            uid
        });
    }

    fn admit(&self, pod: &Pod) -> Option<Verdict> {
        if let Some(refusal) = node_plan::pressure::admit(pod, &self.agent.pressure.borrow()) {
            return Some(refusal);
        }
        let others: Vec<Pod> = self.agent.pods.borrow().values().map(|p| Pod::clone(p)).collect();
        let node = self.agent.object.read().clone().unwrap_or_else(|| node::object(&self.agent));
        node_plan::admit::admit(pod, &others, &node)
    }

    fn ended(&mut self, done: std::result::Result<String, tokio::task::JoinError>) {
        match done {
            Ok(uid) => {
                let view = self.views.remove(&uid);
                if view.is_some_and(|v| !v.borrow().gone) {
                    self.finished.insert(uid);
                }
            }
            Err(error) => tracing::error!(%error, "a worker failed"),
        }
    }
}

/// A pod that has ended and is not deleted needs nothing from a node that does not remember it.
fn idle(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) && pod.metadata.deletion_timestamp.is_none()
}
