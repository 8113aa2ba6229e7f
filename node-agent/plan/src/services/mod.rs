//! Services and their endpoint slices as addresses and where they lead on one node (kube-proxy's part).

mod board;
mod endpoints;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use api::k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use api::k8s_openapi::api::discovery::v1::EndpointSlice;
use api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use endpoints::Endpoints;

pub use board::{Board, Changes, Key};

/// The label that ties a slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

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
    /// There are endpoints, though none in `endpoints`: connections are dropped instead.
    pub elsewhere: bool,
    /// Where connections from outside the cluster go, if not to `endpoints`: to these, with their client's address.
    pub outside: Option<Vec<SocketAddr>>,
    /// Seconds for which a client stays with its endpoint; 0 is no affinity.
    pub affinity_seconds: u32,
    /// Keep the client's address.
    pub keep_source: bool,
    /// Who may connect: address and length of the prefix. Empty: everybody.
    pub sources: Vec<(IpAddr, u8)>,
    /// UDP: endpoints that get no new connections but keep those they have.
    pub serving: Vec<SocketAddr>,
}

/// Where a node is, as far as services ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub node: String,
    /// Its label `topology.kubernetes.io/zone`, or empty.
    pub zone: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// What a load balancer is told that asks whether to send a service's connections here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The service's `healthCheckNodePort`.
    pub port: u16,
    /// Ready endpoints on this node.
    pub endpoints: usize,
}

impl Health {
    /// Only load balancers with the external policy `Local` ask.
    pub(crate) fn of(service: &Service, slices: &[&EndpointSlice], place: &Place) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() != Some("LoadBalancer") || !is_local(spec.external_traffic_policy.as_deref()) {
            return None;
        }
        let port = u16::try_from(spec.health_check_node_port?).ok().filter(|port| *port > 0)?;
        let v4 = cluster_ips(spec).first()?.is_ipv4();
        let addresses: BTreeSet<IpAddr> = endpoints::ready_here(slices, v4, place).collect();
        Some(Self { port, endpoints: addresses.len() })
    }
}

fn is_local(policy: Option<&str>) -> bool {
    policy == Some("Local")
}

fn protocol(name: Option<&str>) -> Protocol {
    match name {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

/// The frontends of a service, made from its own slices. One without cluster address has none.
pub(crate) fn of_service(service: &Service, slices: &[&EndpointSlice], place: &Place) -> Vec<Frontend> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let clusters = cluster_ips(spec);
    if spec.type_.as_deref() == Some("ExternalName") || clusters.is_empty() {
        return Vec::new();
    }
    let ports = || spec.ports.iter().flatten();
    let family = |ip: &IpAddr| {
        let ports = ports().map(|port| Way { spec, port, endpoints: endpoints::of(slices, port, ip.is_ipv4(), place) });
        ports.collect::<Vec<_>>()
    };
    let mut list = Vec::new();
    for ip in &clusters {
        for way in family(ip) {
            list.push(way.inside(*ip));
            list.extend(
                external_ips(spec).filter(|other| other.is_ipv4() == ip.is_ipv4()).map(|ip| way.outside(way.at(ip))),
            );
            let balancers: Vec<IpAddr> =
                balancer_ips(service).filter(|other| other.is_ipv4() == ip.is_ipv4()).collect();
            let sources = sources(spec, &balancers, ip.is_ipv4(), place);
            list.extend(balancers.iter().map(|ip| Frontend { sources: sources.clone(), ..way.outside(way.at(*ip)) }));
            list.extend(way.node_port().map(|port| way.outside(Address::NodePort(port))));
        }
    }
    merged(list)
}

/// A node port of both families is one frontend; an address that is named twice is one, too.
fn merged(list: Vec<Frontend>) -> Vec<Frontend> {
    let mut merged: Vec<Frontend> = Vec::new();
    for mut frontend in list {
        match merged.iter_mut().find(|known| (known.at, known.protocol) == (frontend.at, frontend.protocol)) {
            None => merged.push(frontend),
            Some(known) if matches!(known.at, Address::NodePort(_)) => {
                known.endpoints.append(&mut frontend.endpoints);
                known.outside.iter_mut().for_each(|list| list.extend(frontend.outside.iter().flatten()));
                known.serving.append(&mut frontend.serving);
            }
            Some(_) => {}
        }
    }
    merged
}

/// A port of a service in one family, and where it leads.
struct Way<'a> {
    spec: &'a ServiceSpec,
    port: &'a ServicePort,
    endpoints: Endpoints,
}

impl Way<'_> {
    fn at(&self, ip: IpAddr) -> Address {
        Address::Ip(SocketAddr::new(ip, u16::try_from(self.port.port).unwrap_or(0)))
    }

    fn node_port(&self) -> Option<u16> {
        self.port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
    }

    /// A cluster address.
    fn inside(&self, ip: IpAddr) -> Frontend {
        let local = is_local(self.spec.internal_traffic_policy.as_deref());
        let endpoints = if local { &self.endpoints.local } else { &self.endpoints.cluster };
        self.frontend(self.at(ip), endpoints, None)
    }

    /// What can be reached from outside. Pods and the node itself are led as a load balancer would lead them back in.
    fn outside(&self, at: Address) -> Frontend {
        let local = is_local(self.spec.external_traffic_policy.as_deref());
        self.frontend(at, &self.endpoints.cluster, local.then(|| self.endpoints.local.clone()))
    }

    fn frontend(&self, at: Address, endpoints: &[SocketAddr], outside: Option<Vec<SocketAddr>>) -> Frontend {
        let protocol = protocol(self.port.protocol.as_deref());
        let used = |endpoint: &&SocketAddr| {
            endpoints.contains(endpoint) || outside.as_ref().is_some_and(|list| list.contains(endpoint))
        };
        let serving = match protocol {
            Protocol::Udp => self.endpoints.serving.iter().filter(|endpoint| !used(endpoint)).copied().collect(),
            Protocol::Tcp | Protocol::Sctp => Vec::new(),
        };
        Frontend {
            at,
            protocol,
            endpoints: endpoints.to_vec(),
            elsewhere: endpoints.is_empty() && self.endpoints.any,
            outside,
            affinity_seconds: affinity(self.spec),
            keep_source: false,
            sources: Vec::new(),
            serving,
        }
    }
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

fn external_ips(spec: &ServiceSpec) -> impl Iterator<Item = IpAddr> {
    spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok())
}

/// The addresses of load balancers that deliver packets as they came (`ipMode: VIP`, the default).
fn balancer_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let virtual_ = ingress.filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
    virtual_.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
}

/// Who may use a load balancer. Where the node may, so may the balancer's own addresses: the node has them as its
/// source when it asks itself.
fn sources(spec: &ServiceSpec, balancers: &[IpAddr], v4: bool, place: &Place) -> Vec<(IpAddr, u8)> {
    let ranges = spec.load_balancer_source_ranges.iter().flatten().filter_map(|range| prefix(range));
    let mut ranges: Vec<(IpAddr, u8)> = ranges.filter(|(ip, _)| ip.is_ipv4() == v4).collect();
    if ranges.iter().any(|(_, length)| *length == 0) {
        return Vec::new();
    }
    if place.ips.iter().any(|ip| ranges.iter().any(|range| contains(*range, *ip))) {
        ranges.extend(balancers.iter().map(|ip| (*ip, if v4 { 32 } else { 128 })));
    }
    ranges
}

/// `10.0.0.0/8`; blanks around it are allowed.
fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = text.trim().split_once('/')?;
    let (ip, length): (IpAddr, u8) = (ip.parse().ok()?, length.parse().ok()?);
    (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, length))
}

fn contains((net, length): (IpAddr, u8), ip: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u32| (a ^ b).checked_shr(bits - u32::from(length)).unwrap_or(0) == 0;
    match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => same(net.to_bits().into(), ip.to_bits().into(), 32),
        (IpAddr::V6(net), IpAddr::V6(ip)) => same(net.to_bits(), ip.to_bits(), 128),
        _ => false,
    }
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
                elsewhere: false,
                outside: None,
                affinity_seconds: 0,
                keep_source: true,
                sources: Vec::new(),
                serving: Vec::new(),
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
