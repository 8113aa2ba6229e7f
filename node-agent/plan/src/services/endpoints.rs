//! Which endpoints of a service port a node uses: upstream's `pkg/proxy` decides it in `topology.go` and
//! `endpointslicecache.go`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use api::k8s_openapi::api::core::v1::ServicePort;
use api::k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::{Place, protocol};

/// One endpoint as this node sees it.
#[derive(Clone, Copy, Debug)]
struct Member {
    ready: bool,
    serving: bool,
    terminating: bool,
    /// On this node.
    local: bool,
    zone: Hint,
    node: Hint,
}

/// Whom an endpoint is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    Missing,
    Us,
    Others,
}

impl Hint {
    fn of<'a>(mut names: impl Iterator<Item = &'a str>, own: &str) -> Self {
        match names.next() {
            None => Self::Missing,
            Some(first) if first == own || names.any(|name| name == own) => Self::Us,
            Some(_) => Self::Others,
        }
    }
}

/// Where a service port leads from one node, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// Under the policy `Cluster`.
    pub(super) cluster: Vec<SocketAddr>,
    /// Under the policy `Local`.
    pub(super) local: Vec<SocketAddr>,
    /// Everything that still serves.
    pub(super) serving: Vec<SocketAddr>,
    /// Whether there is any on some node.
    pub(super) any: bool,
}

/// The endpoints of a port in the slices of one family. Ready ones; where there are none, those that serve while they
/// end. Hints are heeded only where every ready endpoint has one and at least one is meant for us.
pub(super) fn of(slices: &[&EndpointSlice], port: &ServicePort, v4: bool, place: &Place) -> Endpoints {
    let members = members(slices, port, v4, place);
    let ready = || members.iter().filter(|(_, m)| m.ready);
    let ending = || members.iter().filter(|(_, m)| !m.ready && m.serving && m.terminating);
    let addresses = |list: Vec<(&SocketAddr, &Member)>| list.into_iter().map(|(at, _)| *at).collect::<Vec<_>>();
    let or = |first: Vec<_>, second: Vec<_>| addresses(if first.is_empty() { second } else { first });
    let hinted = |hint: fn(&Member) -> Hint| {
        ready().all(|(_, m)| hint(m) != Hint::Missing) && ready().any(|(_, m)| hint(m) == Hint::Us)
    };
    let meant: fn(&Member) -> bool = match (hinted(|m| m.node), hinted(|m| m.zone)) {
        (true, _) => |m| m.node == Hint::Us,
        (_, true) => |m| m.zone == Hint::Us,
        _ => |_| true,
    };
    let cluster = or(ready().filter(|(_, m)| meant(m)).collect(), ending().collect());
    let local = or(ready().filter(|(_, m)| m.local).collect(), ending().filter(|(_, m)| m.local).collect());
    let serving = members.iter().filter(|(_, m)| m.serving).map(|(at, _)| *at).collect();
    Endpoints { any: !cluster.is_empty() || !local.is_empty(), cluster, local, serving }
}

/// Ready addresses on this node.
pub(super) fn ready_here<'a>(
    slices: &'a [&EndpointSlice],
    v4: bool,
    place: &'a Place,
) -> impl Iterator<Item = IpAddr> + 'a {
    let endpoints =
        slices.iter().filter(move |slice| is_family(slice, v4)).flat_map(|slice| slice.endpoints.iter().flatten());
    let here = endpoints.map(|endpoint| (endpoint, member(endpoint, place))).filter(|(_, m)| m.ready && m.local);
    here.filter_map(|(endpoint, _)| address(endpoint))
}

fn is_family(slice: &EndpointSlice, v4: bool) -> bool {
    slice.address_type == if v4 { "IPv4" } else { "IPv6" }
}

/// The first address: the others mean the same endpoint.
fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

/// Of two endpoints with one address, the one that is not ending: addresses are used again.
fn members(slices: &[&EndpointSlice], port: &ServicePort, v4: bool, place: &Place) -> BTreeMap<SocketAddr, Member> {
    let mut members = BTreeMap::new();
    for slice in slices.iter().filter(|slice| is_family(slice, v4)) {
        let Some(number) = slice_port(slice, port) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(ip) = address(endpoint) else { continue };
            let (at, member) = (SocketAddr::new(ip, number), member(endpoint, place));
            if !member.terminating || !members.contains_key(&at) {
                members.insert(at, member);
            }
        }
    }
    members
}

fn member(endpoint: &Endpoint, place: &Place) -> Member {
    let conditions = endpoint.conditions.as_ref();
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|h| h.for_zones.as_ref()).into_iter().flatten().map(|zone| zone.name.as_str());
    let nodes = hints.and_then(|h| h.for_nodes.as_ref()).into_iter().flatten().map(|node| node.name.as_str());
    Member {
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(&place.node),
        zone: Hint::of(zones, &place.zone),
        node: Hint::of(nodes, &place.node),
    }
}

/// The port of a slice that belongs to a service port: of the same name and protocol.
fn slice_port(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    let name = |n: &Option<String>| n.clone().unwrap_or_default();
    let same = |p: &&EndpointPort| {
        name(&p.name) == name(&port.name) && protocol(p.protocol.as_deref()) == protocol(port.protocol.as_deref())
    };
    let found = slice.ports.iter().flatten().find(same)?.port;
    u16::try_from(found?).ok().filter(|port| *port > 0)
}
