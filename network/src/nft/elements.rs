//! Which elements of which sets make a frontend work.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::expression::{barrier, branch, element, mapping, range};
use super::family::{Family, octets};
use crate::nfnetlink::Attributes;
use crate::{Frontend, FrontendAddress, Protocol};

/// Frontend address, protocol and port -> chain.
pub(crate) const SERVICES: &str = "services";
/// The same for clients that are neither a pod nor this node, where it leads them elsewhere.
pub(crate) const OUTSIDE: &str = "outside";
/// Frontend and a number -> endpoint address and port.
pub(crate) const ENDPOINTS: &str = "endpoints";
/// Frontends without endpoints.
pub(crate) const REJECTS: &str = "rejects";
/// Endpoint address twice: a pod that reaches itself through a service.
pub(crate) const HAIRPIN: &str = "hairpin";
/// Virtual addresses that have some service: their other ports are refused.
pub(crate) const ADDRESSES: &str = "addresses";
/// Client and frontend -> the endpoint it stays with.
pub(crate) const AFFINITY: &str = "affinity";
/// Frontend, endpoint and side, while it is one of those with affinity.
pub(crate) const ALIVE: &str = "alive";
/// Frontends that not every client may use.
pub(crate) const RESTRICTED: &str = "restricted";
/// Frontend and range of clients that may use it.
pub(crate) const SOURCES: &str = "sources";

/// Sets that have an element as long as some frontend wants it; the others' elements are each one frontend's own.
pub(crate) const SHARED: &[&str] = &[HAIRPIN, ADDRESSES];
/// Sets that are asked only after another one, which leads to them: they shrink last.
pub(crate) const BEHIND: &[&str] = &[ENDPOINTS, ALIVE, HAIRPIN, ADDRESSES];

/// Whose endpoints those of a class chain are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// Everybody's.
    All,
    /// Those of clients outside the cluster.
    Outside,
}

impl Side {
    /// What the numbers that are drawn begin with.
    pub(crate) fn offset(self) -> u32 {
        match self {
            Self::All => 0,
            Self::Outside => 1 << 31,
        }
    }
}

/// What a class chain depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Class {
    pub(crate) endpoints: u32,
    pub(crate) affinity_seconds: u32,
    pub(crate) keep_source: bool,
    pub(crate) side: Side,
}

impl Class {
    /// Its chain's name.
    pub(crate) fn chain(self) -> String {
        let keep = if self.keep_source { "-keep" } else { "" };
        let side = if self.side == Side::Outside { "-outside" } else { "" };
        format!("c{}-{}{keep}{side}", self.endpoints, self.affinity_seconds)
    }
}

/// An element's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Bytes(Vec<u8>),
    Class(Class),
    Drop,
    /// The last key of the range that begins with the element's.
    Until(Vec<u8>),
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Value,
}

impl Element {
    /// The attributes that add it to its set.
    pub(crate) fn whole(&self) -> Attributes {
        match &self.value {
            Value::None => element(&self.key),
            Value::Bytes(value) => mapping(&self.key, value),
            Value::Class(class) => branch(&self.key, &class.chain()),
            Value::Drop => barrier(&self.key),
            Value::Until(last) => range(&self.key, last),
        }
    }

    /// The attributes that delete it.
    pub(crate) fn name(&self) -> Attributes {
        match &self.value {
            Value::Until(last) => range(&self.key, last),
            _ => element(&self.key),
        }
    }
}

/// The ranges of addresses that elements depend on, of one family.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    /// All pods'.
    pub(crate) cluster: Vec<IpNet>,
    /// The pods' of this node.
    pub(crate) pods: Vec<IpNet>,
    /// Virtual addresses.
    pub(crate) services: Vec<IpNet>,
}

/// The elements that make a frontend work, as far as it is of this family. The place of an endpoint in its list is the
/// number that leads to it.
pub(crate) fn of(family: Family, ranges: &Ranges, frontend: &Frontend) -> Vec<Element> {
    let Some(key) = frontend_key(family, frontend) else { return Vec::new() };
    let mut list = List { family, ranges, frontend, key, elements: Vec::new(), here: BTreeSet::new() };
    list.access();
    list.inside();
    list.outside();
    list.elements
}

struct List<'a> {
    family: Family,
    ranges: &'a Ranges,
    frontend: &'a Frontend,
    key: Vec<u8>,
    elements: Vec<Element>,
    /// Endpoints' addresses that are pods of this node.
    here: BTreeSet<IpAddr>,
}

impl List<'_> {
    fn put(&mut self, set: &'static str, key: Vec<u8>, value: Value) {
        self.elements.push(Element { set, key, value });
    }

    /// What is virtual about its address, and who may use it.
    fn access(&mut self) {
        if let FrontendAddress::Ip(at) = self.frontend.at
            && self.ranges.services.iter().any(|net| net.contains(&at.ip()))
        {
            self.put(ADDRESSES, octets(at.ip()), Value::None);
        }
        let sources: Vec<IpNet> =
            self.frontend.sources.iter().filter(|net| self.family.has(net.addr())).copied().collect();
        for (at, net) in IpNet::aggregate(&sources).into_iter().enumerate() {
            if at == 0 {
                self.put(RESTRICTED, self.key.clone(), Value::None);
            }
            let last = [self.key.clone(), octets(net.broadcast())].concat();
            self.put(SOURCES, [self.key.clone(), octets(net.network())].concat(), Value::Until(last));
        }
    }

    fn inside(&mut self) {
        let endpoints = self.of_family(&self.frontend.endpoints);
        match (endpoints.is_empty(), self.frontend.elsewhere) {
            (true, false) => self.put(REJECTS, self.key.clone(), Value::None),
            (true, true) => self.put(SERVICES, self.key.clone(), Value::Drop),
            _ => self.class(SERVICES, &endpoints, self.frontend.keep_source, Side::All),
        }
    }

    fn outside(&mut self) {
        let Some(local) = &self.frontend.outside else { return };
        let endpoints = self.of_family(local);
        match endpoints.is_empty() {
            true if self.of_family(&self.frontend.endpoints).is_empty() && !self.frontend.elsewhere => {}
            true => self.put(OUTSIDE, self.key.clone(), Value::Drop),
            false => self.class(OUTSIDE, &endpoints, true, Side::Outside),
        }
    }

    fn of_family(&self, list: &[SocketAddr]) -> Vec<SocketAddr> {
        list.iter().filter(|endpoint| self.family.has(endpoint.ip())).copied().collect()
    }

    fn class(&mut self, set: &'static str, endpoints: &[SocketAddr], keep_source: bool, side: Side) {
        let affinity_seconds = self.frontend.affinity_seconds;
        let class = Class { endpoints: endpoints.len() as u32, affinity_seconds, keep_source, side };
        self.put(set, self.key.clone(), Value::Class(class));
        for (number, endpoint) in (0..).zip(endpoints) {
            self.endpoint(side.offset() + number, *endpoint, class);
        }
    }

    fn endpoint(&mut self, number: u32, endpoint: SocketAddr, class: Class) {
        let target = address_and_port(endpoint);
        // numgen leaves its number in host order.
        let side = class.side.offset().to_ne_bytes();
        if class.affinity_seconds > 0 {
            self.put(ALIVE, [&*self.key, &target, &side].concat(), Value::None);
        }
        self.put(ENDPOINTS, [&*self.key, &number.to_ne_bytes()].concat(), Value::Bytes(target));
        if self.ranges.pods.iter().any(|net| net.contains(&endpoint.ip())) && self.here.insert(endpoint.ip()) {
            let ip = octets(endpoint.ip());
            self.put(HAIRPIN, [ip.clone(), ip].concat(), Value::None);
        }
    }
}

/// The key of a frontend, or `None` where it is of the other family. Local ports exist in both.
fn frontend_key(family: Family, frontend: &Frontend) -> Option<Vec<u8>> {
    let (address, port) = match frontend.at {
        FrontendAddress::Ip(at) => (family.has(at.ip()).then(|| octets(at.ip()))?, at.port()),
        FrontendAddress::HostPort(Some(ip), port) => (family.has(ip).then(|| octets(ip))?, port),
        FrontendAddress::NodePort(port) | FrontendAddress::HostPort(None, port) => (family.unspecified(), port),
    };
    let protocol = match frontend.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    Some([address, vec![protocol, 0, 0, 0], padded_port(port)].concat())
}

fn padded_port(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![high, low, 0, 0]
}

fn address_and_port(at: SocketAddr) -> Vec<u8> {
    [octets(at.ip()), padded_port(at.port())].concat()
}

/// A frontend whose endpoints stand, as far as they can, where they stood in `before`, so that little changes.
pub(crate) fn arranged(mut frontend: Frontend, before: Option<&Frontend>) -> Frontend {
    let old = before.map_or(&[][..], |before| &before.endpoints);
    frontend.endpoints = places(frontend.endpoints, old);
    let old = before.and_then(|before| before.outside.as_deref()).unwrap_or_default();
    frontend.outside = frontend.outside.map(|list| places(list, old));
    frontend
}

fn places(wanted: Vec<SocketAddr>, before: &[SocketAddr]) -> Vec<SocketAddr> {
    if wanted == before {
        return wanted;
    }
    let mut rest: BTreeSet<SocketAddr> = wanted.iter().copied().collect();
    let stays: Vec<Option<SocketAddr>> = before.iter().take(rest.len()).map(|old| rest.take(old)).collect();
    let size = rest.len() + stays.iter().flatten().count();
    let mut rest = rest.into_iter();
    let places = stays.into_iter().chain(std::iter::repeat(None)).take(size);
    places.filter_map(|place| place.or_else(|| rest.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(numbers: &[u16]) -> Vec<SocketAddr> {
        numbers.iter().map(|n| SocketAddr::from(([10, 0, 0, 1], *n))).collect()
    }

    #[test]
    fn an_endpoint_keeps_its_place() {
        let check = |before: &[u16], wanted: &[u16], after: &[u16]| {
            assert_eq!(places(at(wanted), &at(before)), at(after), "{before:?} {wanted:?}");
        };
        check(&[], &[1, 2, 3], &[1, 2, 3]);
        check(&[1, 2, 3, 4], &[1, 3, 4], &[1, 4, 3]);
        check(&[1, 2, 3], &[1, 2, 3, 0], &[1, 2, 3, 0]);
        check(&[1, 2, 3], &[1, 3, 9], &[1, 9, 3]);
        check(&[1, 2, 3], &[7], &[7]);
        check(&[1, 2, 3], &[3], &[3]);
        check(&[1, 2, 3], &[], &[]);
    }
}
