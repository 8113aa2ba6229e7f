//! The server: its configuration and its public surface.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use store::Store;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::attributes::User;
use crate::cache::Cache;
use crate::core::{Core, Inner};
use crate::crd;
use crate::discovery::Documents;
use crate::entropy::Entropy;
use crate::hooks::Compiled;
use crate::metrics::Metrics;
use crate::parts::Parts;
use crate::perform::Outside;
use crate::perform::lease::Leases;
use crate::perform::turns::Turns;
use crate::ranges;
use crate::row::{Resource, Strategy};
use crate::rows::{self, Registry, Rows};
use crate::serve::{self, Peer};

/// How a server behaves. The defaults are upstream's.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where cluster addresses of services come from; one CIDR an address family, the first is the primary one.
    pub service_cidrs: Vec<IpNet>,
    /// Where node ports come from.
    pub node_ports: RangeInclusive<u16>,
    /// Keys of our own (allocations) begin with this; Kubernetes objects are always under `/registry/`.
    pub own_prefix: String,
    /// Requests that only read, at the same time; watches do not count.
    pub max_reads: usize,
    /// Requests that write, at the same time.
    pub max_writes: usize,
    /// The address of this server that others use, `host:port`, for discovery.
    pub advertise: String,
    /// How long events of the cluster are kept.
    pub event_ttl: Duration,
    /// What uids and generated names start from.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_cidrs: vec![IpNet::V4(ipnet::Ipv4Net::new_assert([10, 96, 0, 0].into(), 16))],
            node_ports: 30000..=32767,
            own_prefix: "/trimtab/".into(),
            max_reads: 400,
            max_writes: 200,
            advertise: "127.0.0.1:6443".into(),
            event_ttl: Duration::from_secs(3600),
            seed: 0,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused.
    #[error("the store cannot be read")]
    Store(#[from] store::Error),
    /// A socket failed.
    #[error("the listener failed")]
    Io(#[from] std::io::Error),
}

/// A running API server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    core: Core,
}

impl Server {
    /// Loads the caches and starts to follow the store. It serves nothing yet.
    pub async fn start(config: Config, store: Arc<dyn Store>, parts: Parts) -> Result<Self, Error> {
        let (stop, stopped) = watch::channel(false);
        let rows = rows::built_in();
        let cache = Cache::start(store, prefixes(&rows), stopped).await?;
        let seed = if config.seed == 0 { rand::random() } else { config.seed };
        let core = Core::new(Inner {
            reads: Semaphore::new(config.max_reads),
            writes: Semaphore::new(config.max_writes),
            config,
            cache,
            registry: Registry::new(Rows::new(rows, 0)),
            stop,
            tasks: TaskTracker::new(),
            documents: Documents::default(),
            leases: Leases::default(),
            hooks: Compiled::default(),
            policies: crate::policies::Compiled::default(),
            turns: Turns::default(),
            outside: Outside::new(Arc::clone(&parts.dial)),
            metrics: Metrics::default(),
            parts,
            seeds: Mutex::new(Entropy::new(seed)),
        });
        crd::start(&core).await?;
        ranges::mend(&core).await?;
        crate::policies::status::start(&core);
        Ok(Self { core })
    }

    /// Serves TLS connections of a listener until shutdown. A new TLS configuration takes effect with the next
    /// connection.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    ) -> Result<(), Error> {
        Ok(serve::accept(self.core.clone(), listener, tls).await?)
    }

    /// A new connection from inside the process, as that user: speak HTTP/1.1 (with upgrades) or HTTP/2 over it.
    pub fn local(&self, user: User) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(LOCAL_BUFFER);
        let peer = Peer { user: Some(user), ..Peer::default() };
        self.core.tasks.spawn(serve::connection(self.core.clone(), theirs, peer));
        ours
    }

    /// Accepts nothing more, lets requests in flight end until the deadline, ends watches, then stops.
    pub async fn shutdown(&self, deadline: Duration) {
        self.core.stop.send_replace(true);
        self.core.tasks.close();
        if tokio::time::timeout(deadline, self.core.tasks.wait()).await.is_err() {
            tracing::warn!("requests were still running at the end of the deadline");
        }
    }
}

/// Bytes under way in one direction of an in-process connection.
const LOCAL_BUFFER: usize = 256 * 1024;

/// One cache a storage, also where two rows share one.
fn prefixes(rows: &[Arc<Resource>]) -> Vec<(String, Strategy)> {
    let stored = rows.iter().filter_map(|row| Some((row.storage.as_ref()?, row)));
    let own = |(storage, row): &(&crate::row::Storage, &Arc<Resource>)| {
        row.versions.iter().any(|v| v.storage && row.group_version(v).to_string() == storage.api_version)
    };
    stored.filter(own).map(|(storage, row)| (storage.prefix.clone(), row.strategy.clone())).collect()
}
