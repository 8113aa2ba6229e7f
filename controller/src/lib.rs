//! One file per controller, each one pure decider, and the list of them.

pub mod accounts;
pub mod clusterrole;
pub mod cronjob;
pub mod csr;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslicemirroring;
pub mod gc;
mod history;
pub mod job;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
mod percent;
mod placement;
pub mod podgc;
mod podset;
pub mod protection;
pub mod replicaset;
pub mod replicationcontroller;
pub mod resourcequota;
pub mod statefulset;
pub mod tokens;

use std::time::Duration;

use reconcile::Controller;

/// What controllers must be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CA certificates that pods get in `kube-root-ca.crt`, PEM; empty for none.
    pub root_ca: String,
    /// How long a node may be silent before it is Unknown.
    pub node_grace: Duration,
    /// The networks from which nodes get their pod networks, one a family; empty for none.
    pub cluster_cidrs: Vec<String>,
    /// The prefix lengths of a node's pod networks, for IPv4 and IPv6.
    pub node_cidr_mask_sizes: (u8, u8),
    /// How many terminated pods are kept.
    pub terminated_pods: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root_ca: String::new(),
            node_grace: Duration::from_secs(50),
            cluster_cidrs: Vec::new(),
            node_cidr_mask_sizes: (24, 64),
            terminated_pods: 12_500,
        }
    }
}

/// All controllers.
pub fn all(options: &Options) -> Vec<Box<dyn Controller>> {
    let mut all: Vec<Box<dyn Controller>> = vec![
        Box::new(deployment::Deployments),
        Box::new(replicaset::ReplicaSets),
        Box::new(replicationcontroller::ReplicationControllers),
        Box::new(endpointslice::EndpointSlices),
        Box::new(endpoints::EndpointsOfServices),
        Box::new(endpointslicemirroring::EndpointSliceMirroring),
        Box::new(resourcequota::ResourceQuotas),
        Box::new(namespace::Namespaces),
        Box::new(gc::GarbageCollector),
        Box::new(accounts::ServiceAccounts),
        Box::new(daemonset::DaemonSets),
        Box::new(statefulset::StatefulSets),
        Box::new(job::Jobs),
        Box::new(cronjob::CronJobs),
        Box::new(node_lifecycle::NodeLifecycle { grace: options.node_grace }),
        Box::new(csr::Approver),
        Box::new(csr::Signer),
        Box::new(csr::Cleaner),
        Box::new(clusterrole::ClusterRoles),
        Box::new(tokens::TokenCleaner),
        Box::new(disruption::Disruptions),
        Box::new(podgc::PodGc { terminated: options.terminated_pods }),
        Box::new(protection::Claims),
        Box::new(protection::Volumes),
        Box::new(protection::AttributesClasses),
    ];
    let (v4, v6) = options.node_cidr_mask_sizes;
    let part = |cidr: &String| if cidr.contains(':') { v6 } else { v4 };
    let pools: Vec<_> = options.cluster_cidrs.iter().filter_map(|c| node_ipam::Pool::new(c, part(c))).collect();
    if !pools.is_empty() {
        all.push(Box::new(node_ipam::NodeIpam { pools }));
    }
    if !options.root_ca.is_empty() {
        all.push(Box::new(accounts::RootCa { certificates: options.root_ca.clone() }));
    }
    all
}
