//! Services and their endpoint slices as addresses and where they lead on one node (kube-proxy's part).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use api::k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use api::k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// What is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Address {
    Ip(SocketAddr),
    NodePort(u16),
    HostPort(Option<IpAddr>, u16),
}

/// One address and port, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// What is matched.
    pub at: Address,
    /// The protocol.
    pub protocol: Protocol,
    /// Where connections go, sorted; none means they are rejected.
    pub endpoints: Vec<SocketAddr>,
    /// Seconds for which a client stays with its endpoint; 0 is no affinity.
    pub affinity_seconds: u32,
    /// Keep the client's address.
    pub keep_source: bool,
}

/// All frontends of a node, sorted: from services and their slices, and from the host ports of the pods bound here.
pub fn frontends(services: &[Service], slices: &[EndpointSlice], pods: &[Pod], node: &str) -> Vec<Frontend> {
    let mut list: Vec<Frontend> = services.iter().flat_map(|s| of_service(s, slices, node)).collect();
    list.extend(pods.iter().flat_map(of_pod));
    list.sort();
    list.dedup_by(|a, b| a.at == b.at && a.protocol == b.protocol);
    list
}

fn protocol(name: Option<&str>) -> Protocol {
    match name {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn of_service(service: &Service, slices: &[EndpointSlice], node: &str) -> Vec<Frontend> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let own: Vec<&EndpointSlice> = slices.iter().filter(|s| belongs(s, service)).collect();
    spec.ports.iter().flatten().flat_map(|port| of_port(spec, port, &own, node)).collect()
}

/// The label that ties a slice to its service.
fn belongs(slice: &EndpointSlice, service: &Service) -> bool {
    let labels = slice.metadata.labels.as_ref();
    slice.metadata.namespace == service.metadata.namespace
        && labels.and_then(|l| l.get("kubernetes.io/service-name")) == service.metadata.name.as_ref()
}

fn of_port(spec: &ServiceSpec, port: &ServicePort, slices: &[&EndpointSlice], node: &str) -> Vec<Frontend> {
    let all = |family_v4: bool| backends(slices, port, family_v4, None);
    let local = |family_v4: bool| backends(slices, port, family_v4, Some(node));
    let inside = |v4| if spec.internal_traffic_policy.as_deref() == Some("Local") { local(v4) } else { all(v4) };
    let keep_source = spec.external_traffic_policy.as_deref() == Some("Local");
    let outside = |v4| if keep_source { local(v4) } else { all(v4) };
    let number = u16::try_from(port.port).unwrap_or(0);
    let frontend = |at, endpoints, keep_source| Frontend {
        at,
        protocol: protocol(port.protocol.as_deref()),
        endpoints,
        affinity_seconds: affinity(spec),
        keep_source,
    };
    let mut list = Vec::new();
    for ip in cluster_ips(spec) {
        list.push(frontend(Address::Ip(SocketAddr::new(ip, number)), inside(ip.is_ipv4()), false));
    }
    for ip in external_ips(spec) {
        list.push(frontend(Address::Ip(SocketAddr::new(ip, number)), outside(ip.is_ipv4()), keep_source));
    }
    if let Some(node_port) = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0) {
        let endpoints = [outside(true), outside(false)].concat();
        list.push(frontend(Address::NodePort(node_port), endpoints, keep_source));
    }
    list
}

fn affinity(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    config.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800)
}

/// The cluster addresses of a service; a headless one has none.
pub fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let list = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let set: BTreeSet<IpAddr> = list.filter_map(|ip| ip.parse().ok()).collect();
    set.into_iter().collect()
}

fn external_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect()
}

/// Where a service port leads: ready endpoints, or where none is ready the ones that still serve while they end. With
/// `node`, only those on it.
fn backends(slices: &[&EndpointSlice], port: &ServicePort, v4: bool, node: Option<&str>) -> Vec<SocketAddr> {
    let (mut ready, mut serving) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.iter().filter(|s| (s.address_type == "IPv4") == v4 && s.address_type != "FQDN") {
        let Some(number) = slice_port(slice, port) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            if node.is_some() && endpoint.node_name.as_deref() != node {
                continue;
            }
            let addresses = endpoint.addresses.iter().filter_map(|a| a.parse().ok());
            let addresses = addresses.map(|ip: IpAddr| SocketAddr::new(ip, number));
            match state(endpoint) {
                State::Ready => ready.extend(addresses),
                State::Serving => serving.extend(addresses),
                State::Out => {}
            }
        }
    }
    (if ready.is_empty() { serving } else { ready }).into_iter().collect()
}

enum State {
    Ready,
    Serving,
    Out,
}

fn state(endpoint: &Endpoint) -> State {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    match (conditions.ready, conditions.serving, conditions.terminating) {
        (None | Some(true), ..) => State::Ready,
        (_, Some(true), Some(true)) => State::Serving,
        _ => State::Out,
    }
}

/// The port of a slice that belongs to a service port: of the same name and protocol.
fn slice_port(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    let name = |n: &Option<String>| n.clone().unwrap_or_default();
    let same = |p: &&api::k8s_openapi::api::discovery::v1::EndpointPort| {
        name(&p.name) == name(&port.name) && protocol(p.protocol.as_deref()) == protocol(port.protocol.as_deref())
    };
    let found = slice.ports.iter().flatten().find(same)?.port;
    u16::try_from(found?).ok()
}

/// Host ports of a running pod lead to the pod.
fn of_pod(pod: &Pod) -> Vec<Frontend> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Vec::new() };
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let ips: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    if over || spec.host_network == Some(true) || ips.is_empty() {
        return Vec::new();
    }
    let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let host = u16::try_from(port.host_port?).ok().filter(|p| *p > 0)?;
            let inside = u16::try_from(port.container_port).ok()?;
            let ip = port.host_ip.as_deref().and_then(|ip| ip.parse().ok()).filter(|ip: &IpAddr| !ip.is_unspecified());
            Some(Frontend {
                at: Address::HostPort(ip, host),
                protocol: protocol(port.protocol.as_deref()),
                endpoints: ips.iter().map(|ip| SocketAddr::new(*ip, inside)).collect(),
                affinity_seconds: 0,
                keep_source: true,
            })
        })
        .collect()
}

/// The number of a port that a probe or hook names.
pub fn container_port(container: &api::k8s_openapi::api::core::v1::Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.and_then(|p| u16::try_from(p.container_port).ok()).or_else(|| name.parse().ok())
        }
    }
}
