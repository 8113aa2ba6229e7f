//! Service rules, kept true to services, their slices and the host ports of pods.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use network::{Frontend, FrontendAddress, FrontendKey, Network, Protocol};
use node_plan::services::{self, Address, Board, Key, Place};

use crate::agent::Agent;
use crate::chain;
use crate::health::Answers;
use crate::routes::RETRY;

/// The label that says in which zone a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Writes what changes touch. Changes that come while rules are written are taken together.
pub(crate) async fn keep(agent: &Agent, network: &Network) {
    agent.services.synced().await;
    agent.slices.synced().await;
    let (mut services, mut slices) = (agent.services.changes(), agent.slices.changes());
    let (mut nodes, mut pods) = (agent.nodes.changes(), agent.pods.subscribe());
    let (mut board, mut health) = (Board::default(), Answers::default());
    // Even if there is nothing yet: rules of an earlier process must go.
    let mut due = true;
    loop {
        pods.mark_unchanged();
        nodes.mark_unchanged();
        services.mark_unchanged();
        slices.mark_unchanged();
        look(agent, &mut board);
        let changes = board.changes();
        if due || !changes.is_empty() {
            let frontends = changes.frontends.iter().map(frontend).collect();
            let gone = changes.gone.iter().map(key).collect();
            let done = network.change_frontends(frontends, gone).await;
            due = done.is_err();
            if let Err(error) = done {
                tracing::warn!(error = chain(&error), "service rules are not set");
            }
        }
        health.set(agent, board.health(), !due);
        if due {
            tokio::time::sleep(RETRY).await;
            continue;
        }
        let changed = tokio::select! {
            changed = services.changed() => changed,
            changed = slices.changed() => changed,
            changed = nodes.changed() => changed,
            changed = pods.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn look(agent: &Agent, board: &mut Board) {
    board.place(place(agent));
    agent.services.take_changed().into_iter().for_each(|(name, service)| board.service(name, service));
    agent.slices.take_changed().into_iter().for_each(|(name, slice)| board.slice(name, slice));
    board.pods(&agent.pods.borrow());
}

fn place(agent: &Agent) -> Place {
    let own = agent.nodes.all().into_iter().find(|node| node.metadata.name.as_ref() == Some(&agent.config.node_name));
    let zone = |node: &Node| node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned();
    let zone = own.and_then(|node| zone(&node)).unwrap_or_default();
    Place { node: agent.config.node_name.clone(), zone, ips: agent.config.node_ips.clone() }
}

fn key((at, protocol): &Key) -> FrontendKey {
    let at = match *at {
        Address::Ip(at) => FrontendAddress::Ip(at),
        Address::NodePort(port) => FrontendAddress::NodePort(port),
        Address::HostPort(ip, port) => FrontendAddress::HostPort(ip, port),
    };
    let protocol = match protocol {
        services::Protocol::Tcp => Protocol::Tcp,
        services::Protocol::Udp => Protocol::Udp,
        services::Protocol::Sctp => Protocol::Sctp,
    };
    (at, protocol)
}

fn frontend(plain: &services::Frontend) -> Frontend {
    let (at, protocol) = key(&(plain.at, plain.protocol));
    let net = |(ip, length): &(IpAddr, u8)| IpNet::new(*ip, *length).ok();
    Frontend {
        at,
        protocol,
        endpoints: plain.endpoints.clone(),
        elsewhere: plain.elsewhere,
        outside: plain.outside.clone(),
        affinity_seconds: plain.affinity_seconds,
        keep_source: plain.keep_source,
        sources: plain.sources.iter().filter_map(net).collect(),
        serving: plain.serving.clone(),
    }
}
