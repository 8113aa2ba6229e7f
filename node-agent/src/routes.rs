//! The node's network: opened once its pod range is known, then kept true to nodes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use network::{Network, Peer};
use tokio::sync::watch;

use crate::Config;
use crate::agent::Agent;
use crate::{chain, services};

/// Wait before something that the kernel refused is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Where pods' network namespaces are bind-mounted.
pub(crate) fn namespaces(config: &Config) -> PathBuf {
    config.run_dir.join("netns")
}

/// Opens the network, hands it out, and keeps ways to other nodes and service rules.
pub(crate) async fn run(agent: Arc<Agent>, opened: watch::Sender<Option<Arc<Network>>>) {
    let network = loop {
        let pod_cidrs = pod_cidrs(&agent).await;
        match Network::open(config(&agent.config, pod_cidrs)).await {
            Ok(network) => break Arc::new(network),
            Err(error) => tracing::error!(error = chain(&error), "the network cannot be opened"),
        }
        tokio::time::sleep(RETRY).await;
    };
    opened.send_replace(Some(network.clone()));
    // `opened` lives on in this task: the agent's receivers must not see it closed.
    tokio::join!(peers(&agent, &network), services::keep(&agent, &network));
    drop(opened);
}

fn config(config: &Config, pod_cidrs: Vec<IpNet>) -> network::Config {
    network::Config {
        instance: config.instance.clone(),
        run_dir: namespaces(config),
        data_dir: config.data_dir.join("network"),
        pod_cidrs,
        cluster_cidrs: config.cluster_cidrs.clone(),
        service_cidrs: config.service_cidrs.clone(),
        node_ips: config.node_ips.clone(),
        mtu: config.mtu,
    }
}

/// The configured ranges, else those of the node's object, once they are there.
async fn pod_cidrs(agent: &Agent) -> Vec<IpNet> {
    if !agent.config.pod_cidrs.is_empty() {
        return agent.config.pod_cidrs.clone();
    }
    let mut changes = agent.nodes.changes();
    loop {
        let nodes = agent.nodes.all();
        let own = nodes.iter().find(|n| n.metadata.name.as_ref() == Some(&agent.config.node_name));
        let ranges = own.map(|node| ranges(node)).unwrap_or_default();
        if !ranges.is_empty() {
            return ranges;
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn ranges(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.clone().unwrap_or_default();
    let list = spec.pod_cidrs.filter(|l| !l.is_empty()).or(spec.pod_cidr.map(|c| vec![c])).unwrap_or_default();
    list.iter().filter_map(|cidr| cidr.parse().ok()).collect()
}

/// Ways to the other nodes' pods.
async fn peers(agent: &Agent, network: &Network) {
    let mut changes = agent.nodes.changes();
    let mut set = None;
    loop {
        let next: Vec<Peer> = agent.nodes.all().iter().filter_map(|node| peer(&agent.config, node)).collect();
        if set.as_ref() != Some(&next) {
            match network.set_peers(&next).await {
                Ok(()) => set = Some(next),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "ways to other nodes are not set");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn peer(config: &Config, node: &Node) -> Option<Peer> {
    if node.metadata.name.as_ref() == Some(&config.node_name) {
        return None;
    }
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().find(|a| a.type_ == "InternalIP")?;
    let node_ip: IpAddr = internal.address.parse().ok()?;
    let pod_cidrs = ranges(node);
    (!pod_cidrs.is_empty()).then_some(Peer { pod_cidrs, node_ip })
}
