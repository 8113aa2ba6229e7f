//! What an agent is told at its start.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use node_plan::Step;

/// The settings of one node agent. Everything it makes on the host carries `instance`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instance's id, at most 6 characters of `[a-z0-9]`.
    pub instance: String,
    /// The node's name.
    pub node_name: String,
    /// The node's own addresses, primary family first.
    pub node_ips: Vec<IpAddr>,
    /// `/var/lib/trimtab`: pods and addresses.
    pub data_dir: PathBuf,
    /// `/run/trimtab/<instance>`: what dies with the boot.
    pub run_dir: PathBuf,
    /// `/var/log/pods` on a default instance, else below the data directory.
    pub log_dir: PathBuf,
    /// The image store's root.
    pub images_dir: PathBuf,
    /// Archives and layouts that are imported at start (air gap).
    pub preload_dir: Option<PathBuf>,
    /// Our own executable: it becomes each pod's shim, as `program shim <run_dir>`.
    pub program: PathBuf,
    /// Addresses of the cluster's DNS service.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// All pods' ranges.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of service addresses.
    pub service_cidrs: Vec<IpNet>,
    /// This node's pod ranges; empty: those that the control plane writes into `node.spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Bytes; pods' links get the same.
    pub mtu: u32,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// Seconds without a heartbeat after which the control plane gives the node up: it is renewed four times as often,
    /// and at least every ten seconds.
    pub grace_seconds: u64,
    /// More labels for the node.
    pub labels: BTreeMap<String, String>,
    /// Where the HTTPS endpoints listen; the port is published as `daemonEndpoints.kubeletEndpoint`.
    pub listen: SocketAddr,
    /// The certificate of the HTTPS endpoints.
    pub serving: Serving,
    /// The CA whose client certificates are accepted there, PEM; `None`: only bearer tokens are.
    pub client_ca_pem: Option<String>,
    /// How registries are reached: mirrors, certificates, plain HTTP.
    pub registries: runtime_image::Registries,
    /// The version that the node reports as its kubelet's.
    pub version: String,
    /// Told of every step, for proofs that end the process there.
    pub on_step: Option<OnStep>,
}

/// What is told of a step of a pod: that it is about to be done, or (true) that it is done and nobody knows it yet.
pub type OnStep = fn(&Pod, &Step, bool);

/// Where the serving certificate comes from.
#[derive(Clone, Debug)]
pub enum Serving {
    /// Files that somebody else keeps fresh; they are read again when they change.
    #[allow(missing_docs)]
    Files { certificate: PathBuf, key: PathBuf },
    /// A CertificateSigningRequest for `kubernetes.io/kubelet-serving`, kept below the data directory and renewed.
    Request,
}

impl Config {
    /// The root of the instance's cgroups, relative to each hierarchy's.
    pub(crate) fn cgroup_root(&self) -> String {
        format!("trimtab-{}", self.instance)
    }
}
