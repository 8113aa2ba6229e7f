//! The server: its configuration and its public surface.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use store::Store;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::attributes::User;
use crate::parts::Parts;

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
    config: Arc<Config>,
    store: Arc<dyn Store>,
    parts: Arc<Parts>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Loads the caches and starts to follow the store. It serves nothing yet.
    pub async fn start(config: Config, store: Arc<dyn Store>, parts: Parts) -> Result<Self, Error> {
        let (stop, _) = watch::channel(false);
        Ok(Self { config: Arc::new(config), store, parts: Arc::new(parts), stop })
    }

    /// Serves TLS connections of a listener until shutdown. A new TLS configuration takes effect with the next
    /// connection.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    ) -> Result<(), Error> {
        let _ = (&self.config, &self.store, &self.parts, listener, tls);
        Ok(())
    }

    /// A new connection from inside the process, as that user: speak HTTP/1.1 (with upgrades) or HTTP/2 over it.
    pub fn local(&self, user: User) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let _ = (user, theirs);
        ours
    }

    /// Accepts nothing more, lets requests in flight end until the deadline, ends watches, then stops.
    pub async fn shutdown(&self, deadline: Duration) {
        let _ = deadline;
        self.stop.send_replace(true);
    }
}
