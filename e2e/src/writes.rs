//! Writers and a watcher that live through a server's death, and what must hold afterwards: every acknowledged write is
//! there, none is invented, and the watcher saw each exactly once and in order.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::Mutex;

/// Writers at the same time.
const WRITERS: usize = 8;
/// A server that does not answer is asked again after this time.
const RETRY: Duration = Duration::from_millis(100);
/// All of it may take so long.
const LONGEST: Duration = Duration::from_secs(120);

/// Runs async work in a node's network namespace, with a client made from a kubeconfig there.
pub fn within<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    namespace: &str,
    kubeconfig: PathBuf,
    work: impl FnOnce(client::Client) -> F + Send + 'static,
) -> thread::JoinHandle<Result<T>> {
    let namespace = Path::new("/run/netns").join(namespace);
    thread::spawn(move || {
        let file = File::open(&namespace)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async move {
            let client = client::from_kubeconfig(&kubeconfig)?;
            tokio::time::timeout(LONGEST, work(client)).await.context("not done in time")?
        })
    })
}

/// Shared with whoever kills the server at some point.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Writes `total` objects once each (a write whose answer was lost may have happened or not), watches them all the
/// while, and checks.
pub async fn run(client: client::Client, total: usize, count: Count) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let only = ListParams::default().labels("test=writes");
    let start = api.list(&only).await?.metadata.resource_version.context("no resourceVersion")?;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let next = Arc::new(AtomicUsize::new(0));
    let writers = (0..WRITERS).map(|_| write(api.clone(), total, next.clone(), acknowledged.clone(), count.clone()));
    futures::future::try_join_all(writers).await?;
    let acknowledged = acknowledged.lock().await.clone();
    let listed = api.list(&only).await?;
    let names: BTreeSet<String> = listed.items.into_iter().filter_map(|o| o.metadata.name).collect();
    let lost: Vec<_> = acknowledged.difference(&names).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    ensure!(names.iter().all(|n| n.starts_with("write-")), "invented: {names:?}");
    watched(&api, start, names).await
}

async fn write(
    api: Api<ConfigMap>,
    total: usize,
    next: Arc<AtomicUsize>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    count: Count,
) -> Result<()> {
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= total {
            return Ok(());
        }
        let name = format!("write-{at:05}");
        let labels = [("test".to_owned(), "writes".to_owned())].into();
        let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() };
        let object = ConfigMap { metadata, ..ConfigMap::default() };
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {
                acknowledged.lock().await.insert(name);
                count.0.fetch_add(1, Ordering::Relaxed);
            }
            Err(kube::Error::Api(status)) if status.code < 500 => bail!("{name}: {status}"),
            // The server is gone for a while: the next name is tried once it may be back.
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Reads the whole history from `version` on, resuming whenever the watch ends.
async fn watched(api: &Api<ConfigMap>, mut version: String, mut missing: BTreeSet<String>) -> Result<()> {
    while !missing.is_empty() {
        let only = WatchParams::default().labels("test=writes").timeout(5);
        let mut events = std::pin::pin!(api.watch(&only, &version).await?);
        while let Some(event) = events.try_next().await? {
            let WatchEvent::Added(object) = event else { continue };
            let name = object.metadata.name.unwrap_or_default();
            let seen = object.metadata.resource_version.unwrap_or_default();
            ensure!(seen.parse::<u64>()? > version.parse::<u64>()?, "{name}: {seen} came after {version}");
            ensure!(missing.remove(&name), "{name} was seen twice or is not there");
            version = seen;
            if missing.is_empty() {
                break;
            }
        }
    }
    Ok(())
}
