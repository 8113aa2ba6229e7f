//! Connections that the kernel tracks and that lead where nobody serves any more (ctnetlink).
//!
//! A translation is decided once, with a connection's first packet. TCP ends when its endpoint does; a UDP client that
//! goes on sending from one port would be led to an endpoint that is gone for ever.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::nfnetlink::{
    Attributes, Channel, Header, NLM_F_ACK, NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, attributes, messages, receive_verdict,
};
use crate::{Frontend, FrontendAddress, FrontendKey, Protocol};

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// `CTA_*`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const UDP: u8 = 17;
/// Ports that the kernel is asked for one by one; where there are more, for all at once.
const QUESTIONS: usize = 8;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const FAMILIES: [u8; 2] = [2, 10];

/// What UDP frontends serve, of those that have changed: `None` where the frontend is gone.
#[derive(Debug, Default)]
pub(crate) struct Served(HashMap<FrontendAddress, Option<HashSet<SocketAddr>>>);

impl Served {
    /// Of frontends that are others than before, and of those that are gone.
    pub(crate) fn of<'a>(changed: impl Iterator<Item = &'a Frontend>, gone: impl Iterator<Item = FrontendKey>) -> Self {
        let gone = gone.filter(|(_, protocol)| *protocol == Protocol::Udp).map(|(at, _)| (at, None));
        let changed = changed.filter(|frontend| frontend.protocol == Protocol::Udp);
        Self(gone.chain(changed.map(|frontend| (frontend.at, Some(endpoints(frontend))))).collect())
    }

    /// Whether no connection can have been touched.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which flows the kernel is asked for: families, and ports unless they are too many to name. To look through its
    /// whole table takes a while.
    fn questions(&self) -> BTreeSet<(u8, Option<u16>)> {
        let of = |(at, endpoints): (&FrontendAddress, &Option<HashSet<SocketAddr>>)| {
            let (ip, port) = match *at {
                FrontendAddress::Ip(at) => (Some(at.ip()), at.port()),
                FrontendAddress::NodePort(port) => (None, port),
                FrontendAddress::HostPort(ip, port) => (ip, port),
            };
            let ip = ip.or_else(|| endpoints.iter().flatten().next().map(SocketAddr::ip));
            let families =
                FAMILIES.into_iter().filter(move |family| ip.is_none_or(|ip| ip.is_ipv4() == (*family == 2)));
            families.map(|family| (family, Some(port))).collect::<Vec<_>>()
        };
        let all: BTreeSet<_> = self.0.iter().flat_map(of).collect();
        if all.len() > QUESTIONS { all.into_iter().map(|(family, _)| (family, None)).collect() } else { all }
    }

    /// Whether a flow leads to a frontend of these, but to none of its endpoints. `local` are this node's addresses.
    fn misses(&self, flow: &Flow, local: &[IpAddr]) -> bool {
        let (ip, port) = (flow.to.ip(), flow.to.port());
        let here = [
            FrontendAddress::HostPort(Some(ip), port),
            FrontendAddress::NodePort(port),
            FrontendAddress::HostPort(None, port),
        ];
        let here = here.iter().filter(|_| local.contains(&ip));
        let found = [FrontendAddress::Ip(flow.to)].iter().chain(here).find_map(|at| self.0.get(at));
        match found {
            None => false,
            Some(None) => flow.endpoint != flow.to,
            Some(Some(endpoints)) => !endpoints.contains(&flow.endpoint),
        }
    }
}

fn endpoints(frontend: &Frontend) -> HashSet<SocketAddr> {
    let outside = frontend.outside.iter().flatten();
    frontend.endpoints.iter().chain(outside).chain(&frontend.serving).copied().collect()
}

/// A tracked connection.
#[derive(Clone, Debug, PartialEq)]
struct Flow {
    family: u8,
    /// Where its client sends.
    to: SocketAddr,
    /// Who answers.
    endpoint: SocketAddr,
    /// What names it: the attributes as the kernel wrote them.
    name: Attributes,
}

/// Makes the kernel forget the flows that miss their frontends' endpoints; the next packet of each is led anew. Returns
/// how many there were.
pub(crate) fn forget(channel: &mut Channel, served: &Served, local: &[IpAddr]) -> io::Result<usize> {
    let mut forgotten = 0;
    for (family, port) in served.questions() {
        let stale: Vec<Flow> = flows(channel, family, port)?.into_iter().filter(|f| served.misses(f, local)).collect();
        forgotten += stale.len();
        stale.iter().try_for_each(|flow| delete(channel, flow))?;
    }
    Ok(forgotten)
}

/// All UDP flows of a family, to a port or to any.
fn flows(channel: &mut Channel, family: u8, port: Option<u16>) -> io::Result<Vec<Flow>> {
    let mut request = Vec::new();
    let header = Header { kind: GET, flags: NLM_F_DUMP, sequence: 1, family, resource: 0 };
    header.write(&filter(port), &mut request);
    channel.exchange(&request, |socket| {
        let mut flows = Vec::new();
        loop {
            let (bytes, _) = socket.recv_from_full()?;
            for message in messages(&bytes) {
                match message.kind {
                    NLMSG_DONE => return Ok(flows),
                    NLMSG_ERROR => return Err(io::Error::from_raw_os_error(-message.code())),
                    _ => flows.extend(flow(family, message.attributes())),
                }
            }
        }
    })
}

/// Tables can be large: the kernel tells only of UDP and of this port. (Linux before 5.8 tells of everything.)
fn filter(port: Option<u16>) -> Attributes {
    const NUMBER: u32 = 1 << 3;
    const PORT: u32 = 1 << 5;
    let protocol = Attributes::default().bytes(1, &[UDP]).bytes(3, &port.unwrap_or(0).to_be_bytes());
    let flags = NUMBER | port.map_or(0, |_| PORT);
    let original = Attributes::default().nest(2, protocol);
    let flags = Attributes::default().bytes(1, &flags.to_ne_bytes());
    Attributes::default().nest(ORIGINAL, original).nest(FILTER, flags)
}

fn flow<'a>(family: u8, parts: impl Iterator<Item = (u16, &'a [u8])>) -> Option<Flow> {
    let (mut to, mut endpoint, mut name) = (None, None, Attributes::default());
    for (kind, value) in parts {
        match kind {
            ORIGINAL => {
                (to, name) = (tuple(value).map(|ends| ends.to), name.nested(ORIGINAL, value));
            }
            REPLY => endpoint = tuple(value).map(|ends| ends.from),
            ZONE => name = name.bytes(ZONE, value),
            _ => {}
        }
    }
    Some(Flow { family, to: to?, endpoint: endpoint?, name })
}

/// One direction of a flow.
struct Ends {
    from: SocketAddr,
    to: SocketAddr,
}

/// `CTA_TUPLE_*` of UDP.
fn tuple(bytes: &[u8]) -> Option<Ends> {
    let part = |bytes, wanted: u16| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (ip, protocol) = (part(bytes, 1)?, part(bytes, 2)?);
    if part(protocol, 1)? != [UDP] {
        return None;
    }
    let address = |v4, v6| match (part(ip, v4), part(ip, v6)) {
        (Some(bytes), _) => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        (_, Some(bytes)) => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
        _ => None,
    };
    let port = |kind| Some(u16::from_be_bytes(part(protocol, kind)?.try_into().ok()?));
    Some(Ends { from: SocketAddr::new(address(1, 3)?, port(2)?), to: SocketAddr::new(address(2, 4)?, port(3)?) })
}

/// One that has ended meanwhile is fine.
fn delete(channel: &mut Channel, flow: &Flow) -> io::Result<()> {
    let mut request = Vec::new();
    let header = Header { kind: DELETE, flags: NLM_F_ACK, sequence: 1, family: flow.family, resource: 0 };
    header.write(&flow.name, &mut request);
    channel.exchange(&request, |socket| match receive_verdict(socket, 1) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontend(at: FrontendAddress, endpoints: &[&str]) -> Frontend {
        Frontend {
            endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
            ..Frontend::new(at, Protocol::Udp)
        }
    }

    #[test]
    fn flows_that_miss_their_endpoints_are_found() {
        let cluster = FrontendAddress::Ip("10.96.0.10:53".parse().unwrap());
        let changed = [
            frontend(cluster, &["10.1.0.2:53"]),
            frontend(FrontendAddress::NodePort(30053), &["10.1.0.2:53"]),
            Frontend {
                serving: vec!["10.1.0.9:53".parse().unwrap()],
                ..frontend(FrontendAddress::HostPort(None, 53), &[])
            },
        ];
        let gone = [(FrontendAddress::Ip("10.96.0.11:53".parse().unwrap()), Protocol::Udp)];
        let served = Served::of(changed.iter(), gone.into_iter());
        let local = ["192.168.0.1".parse().unwrap()];
        let misses = |to: &str, endpoint: &str| {
            let (to, endpoint) = (to.parse().unwrap(), endpoint.parse().unwrap());
            served.misses(&Flow { family: 2, to, endpoint, name: Attributes::default() }, &local)
        };
        assert!(misses("10.96.0.10:53", "10.1.0.3:53"));
        assert!(misses("10.96.0.10:53", "10.96.0.10:53"), "one from before there were endpoints");
        assert!(!misses("10.96.0.10:53", "10.1.0.2:53"));
        assert!(!misses("10.96.0.10:54", "10.1.0.3:53"), "another port");
        assert!(misses("192.168.0.1:30053", "10.1.0.3:53"));
        assert!(!misses("8.8.8.8:30053", "10.1.0.3:53"), "not this node's");
        assert!(!misses("192.168.0.1:53", "10.1.0.9:53"), "one that still serves");
        assert!(misses("10.96.0.11:53", "10.1.0.2:53"), "the frontend is gone");
        assert!(!misses("10.96.0.11:53", "10.96.0.11:53"), "and never led this one");
        assert!(Served::of([].iter(), [(cluster, Protocol::Tcp)].into_iter()).is_empty());
        let asked = [(2, Some(53)), (2, Some(30053))];
        assert_eq!(served.questions().into_iter().collect::<Vec<_>>(), asked);
        let many = (1..20).map(|port| (FrontendAddress::NodePort(port), Protocol::Udp));
        let asked = [(2, None), (10, None)];
        assert_eq!(Served::of([].iter(), many).questions().into_iter().collect::<Vec<_>>(), asked);
    }
}
