//! Links, addresses, routes, service rules and DNS on Linux. No Kubernetes, no external program.
//!
//! Everything made here carries the instance's id (`tt<instance>...`), so that several instances share a machine.

mod conntrack;
mod host;
mod lease;
mod links;
mod namespace;
mod nfnetlink;
mod nft;
mod peers;

pub mod dns;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use host::Network;
pub use links::name_hash;

/// Why the network could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step failed in the kernel: what was being done, and the error.
    #[error("{0}: {1}")]
    System(String, #[source] std::io::Error),
    /// No address is left in the node's range.
    #[error("no free address in {0}")]
    Exhausted(IpNet),
    /// The configuration is wrong.
    #[error("{0}")]
    Invalid(String),
}

/// The result of a network operation.
pub type Result<T> = std::result::Result<T, Error>;

/// What one node's network is made from. Addresses are lists: the first is the primary family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The instance's id, at most 6 characters of `[a-z0-9]`.
    pub instance: String,
    /// `/run/trimtab/<instance>/netns` and the like: where namespaces are bind-mounted.
    pub run_dir: PathBuf,
    /// Leases of addresses, so that a restart gives none twice.
    pub data_dir: PathBuf,
    /// This node's pod ranges, one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// All pods' ranges: traffic that leaves them is masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of virtual service addresses: routed to the bridge, so that a host without a default route reaches them.
    pub service_cidrs: Vec<IpNet>,
    /// This node's own addresses, as other nodes know them.
    pub node_ips: Vec<IpAddr>,
    /// Bytes; pods get the same. A tunnel's is less by what VXLAN adds (50, or 70 over IPv6).
    pub mtu: u32,
}

/// A pod's place in the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The id it was made for.
    pub id: String,
    /// A bind-mounted network namespace.
    pub namespace: PathBuf,
    /// Its addresses, primary family first.
    pub addresses: Vec<IpAddr>,
}

/// Another node and its pods: routed to it where it is on one of our links, else through a VXLAN tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Peer {
    pub pod_cidrs: Vec<IpNet>,
    pub node_ip: IpAddr,
}

/// A transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// One virtual address and port, and where it leads. Endpoints are already filtered (ready, or terminating ones where
/// none is ready; local ones under a local policy).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// What is matched.
    pub at: FrontendAddress,
    /// The protocol.
    pub protocol: Protocol,
    /// Where connections go, each with equal probability; none means they are rejected.
    pub endpoints: Vec<SocketAddr>,
    /// There are endpoints, but none that this node may use: where `endpoints` is empty, connections are dropped, not
    /// rejected.
    pub elsewhere: bool,
    /// Where connections go whose client is neither in the cluster's ranges nor this node, when not to `endpoints`; they
    /// keep their client's address. An empty list: they are dropped, or rejected where `endpoints` are.
    pub outside: Option<Vec<SocketAddr>>,
    /// Seconds for which a client address stays with its endpoint; 0 is no affinity.
    pub affinity_seconds: u32,
    /// Keep the client's address on the way to `endpoints`. Else it is kept for pods of this node alone.
    pub keep_source: bool,
    /// Clients that may connect; others' packets are dropped. Empty, or empty in the address's family: everybody may.
    pub sources: Vec<IpNet>,
    /// UDP: endpoints that get no new connections but keep those they have.
    pub serving: Vec<SocketAddr>,
}

/// What tells frontends apart.
pub type FrontendKey = (FrontendAddress, Protocol);

impl Frontend {
    /// One without endpoints, for everybody.
    pub fn new(at: FrontendAddress, protocol: Protocol) -> Self {
        Self {
            at,
            protocol,
            endpoints: Vec::new(),
            elsewhere: false,
            outside: None,
            affinity_seconds: 0,
            keep_source: false,
            sources: Vec::new(),
            serving: Vec::new(),
        }
    }

    /// What it matches.
    pub fn key(&self) -> FrontendKey {
        (self.at, self.protocol)
    }
}

/// What a frontend matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FrontendAddress {
    /// A cluster, external or load balancer address.
    Ip(SocketAddr),
    /// A port of every local address of the node.
    NodePort(u16),
    /// A host port: of one local address, or of all (`None`).
    HostPort(Option<IpAddr>, u16),
}
