//! Which chains, sets and elements make frontends work.
//!
//! Register layout in class chains: [source address] destination address, protocol, port, then the number drawn, which
//! the endpoint's address and port replace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::expression::{
    CT_STATUS_DNAT, Expressions, META_L4PROTO, META_MARK, ROUTE_LOCAL, Register, branch, element, mapping,
};
use super::wire::{Attributes, Batch, Kind, NLM_F_APPEND, NLM_F_CREATE};
use crate::{Frontend, FrontendAddress, Protocol};

/// Frontend address, protocol and port -> chain.
const SERVICES: &str = "services";
/// The same and a number -> endpoint address and port.
const ENDPOINTS: &str = "endpoints";
/// Frontends without endpoints.
const REJECTS: &str = "rejects";
/// Endpoint address twice: a pod that reaches itself through a service.
const HAIRPIN: &str = "hairpin";
/// Client and frontend -> the endpoint it stays with.
const AFFINITY: &str = "affinity";
/// Frontend and endpoint, while it is one of those with affinity.
const ALIVE: &str = "alive";

/// Packet mark: the client's address is to be kept.
const MARK_KEEP: u32 = 0x8000;

const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const DATA_VERDICT: u32 = 0xffff_ff00;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// `NFPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Whether an address is of this family.
    pub(crate) fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    fn address_bytes(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// The ICMP code of "port unreachable".
    fn port_unreachable(self) -> u8 {
        match self {
            Self::V4 => 3,
            Self::V6 => 4,
        }
    }

    fn address_type(self) -> u32 {
        match self {
            Self::V4 => 7,
            Self::V6 => 8,
        }
    }

    /// The bytes of a concatenation: every part but an address fills one register.
    fn length(self, parts: &[u32]) -> u32 {
        let part = |part: &u32| if *part == self.address_type() { self.address_bytes() } else { 4 };
        parts.iter().map(part).sum()
    }

    /// How many 32-bit registers an address fills.
    fn words(self) -> u32 {
        self.address_bytes() / 4
    }

    fn source_offset(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    fn destination_offset(self) -> u32 {
        match self {
            Self::V4 => 16,
            Self::V6 => 24,
        }
    }

    /// The address that stands for "any local address" in keys.
    fn unspecified(self) -> Vec<u8> {
        vec![0; self.address_bytes() as usize]
    }
}

/// What a class chain depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    endpoints: u32,
    affinity_seconds: u32,
    keep_source: bool,
}

impl Class {
    fn chain(self) -> String {
        let keep = if self.keep_source { "-keep" } else { "" };
        format!("c{}-{}{keep}", self.endpoints, self.affinity_seconds)
    }
}

/// An element's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Bytes(Vec<u8>),
    Class(Class),
}

impl Value {
    /// The element that holds this value at a key.
    pub(crate) fn element(&self, key: &[u8]) -> Attributes {
        match self {
            Self::None => element(key),
            Self::Bytes(value) => mapping(key, value),
            Self::Class(class) => branch(key, &class.chain()),
        }
    }
}

type Set = BTreeMap<Vec<u8>, Value>;

/// All elements of all sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Elements(BTreeMap<&'static str, Set>);

impl Elements {
    /// The elements that make these frontends work, as far as they are of this family.
    pub(crate) fn of(family: Family, frontends: &[Frontend]) -> Self {
        let mut elements = Self::default();
        for name in [SERVICES, ENDPOINTS, REJECTS, HAIRPIN, ALIVE] {
            elements.0.insert(name, Set::new());
        }
        frontends.iter().for_each(|frontend| elements.add(family, frontend));
        elements
    }

    /// The chains they lead to.
    pub(crate) fn classes(&self) -> BTreeSet<Class> {
        let class = |value: &Value| if let Value::Class(class) = value { Some(*class) } else { None };
        self.set(SERVICES).values().filter_map(class).collect()
    }

    /// Every set with its elements.
    pub(crate) fn sets(&self) -> impl Iterator<Item = (&'static str, &Set)> {
        self.0.iter().map(|(name, set)| (*name, set))
    }

    /// One set's elements.
    pub(crate) fn set(&self, name: &str) -> &Set {
        static EMPTY: Set = Set::new();
        self.0.get(name).unwrap_or(&EMPTY)
    }

    fn put(&mut self, set: &'static str, key: Vec<u8>, value: Value) {
        self.0.entry(set).or_default().insert(key, value);
    }

    fn add(&mut self, family: Family, frontend: &Frontend) {
        let Some(key) = frontend_key(family, frontend) else { return };
        let endpoints: Vec<_> = frontend.endpoints.iter().filter(|e| family.has(e.ip())).collect();
        if endpoints.is_empty() {
            return self.put(REJECTS, key, Value::None);
        }
        let class = Class {
            endpoints: endpoints.len() as u32,
            affinity_seconds: frontend.affinity_seconds,
            keep_source: frontend.keep_source,
        };
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            self.endpoint(&key, index as u32, *endpoint, class);
        }
        self.put(SERVICES, key, Value::Class(class));
    }

    fn endpoint(&mut self, key: &[u8], index: u32, endpoint: SocketAddr, class: Class) {
        let target = address_and_port(endpoint);
        if class.affinity_seconds > 0 {
            self.put(ALIVE, [key, &target].concat(), Value::None);
        }
        // numgen leaves its number in host order.
        self.put(ENDPOINTS, [key, &index.to_ne_bytes()].concat(), Value::Bytes(target));
        let ip = octets(endpoint.ip());
        self.put(HAIRPIN, [ip.clone(), ip].concat(), Value::None);
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

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn padded_port(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![high, low, 0, 0]
}

fn address_and_port(at: SocketAddr) -> Vec<u8> {
    [octets(at.ip()), padded_port(at.port())].concat()
}

/// The table with its sets, base chains and fixed rules.
pub(crate) fn base(batch: &mut Batch, table: &str, family: Family, cluster: &[IpNet], pods: &[IpNet]) {
    batch.message(Kind::NewTable, NLM_F_CREATE, &Attributes::default().string(1, table));
    sets(batch, table, family);
    let hooks = [
        ("reject-input", "filter", HOOK_INPUT, 0),
        ("reject-forward", "filter", HOOK_FORWARD, 0),
        ("reject-output", "filter", HOOK_OUTPUT, 0),
        ("nat-prerouting", "nat", HOOK_PREROUTING, -100),
        ("nat-output", "nat", HOOK_OUTPUT, -100),
        ("nat-postrouting", "nat", HOOK_POSTROUTING, 100),
    ];
    ["services", "reject"].iter().for_each(|name| chain(batch, table, name));
    for (name, kind, hook, priority) in hooks {
        base_chain(batch, table, name, kind, hook, priority);
    }
    for name in ["reject-input", "reject-forward", "reject-output"] {
        rule(batch, table, name, Expressions::default().jump("reject"));
    }
    for name in ["nat-prerouting", "nat-output"] {
        rule(batch, table, name, Expressions::default().jump("services"));
    }
    dispatch(batch, table, family);
    postrouting(batch, table, family, cluster, pods);
}

/// Keys: the packet's own destination first, then "any local address".
fn dispatch(batch: &mut Batch, table: &str, family: Family) {
    let key = Register(0);
    rule(batch, table, "services", destination(family, key).verdict_of(SERVICES, key));
    rule(batch, table, "services", local_port(family, key).verdict_of(SERVICES, key));
    rule(batch, table, "reject", destination(family, key).in_set(REJECTS, key).reject(family.port_unreachable()));
    rule(batch, table, "reject", local_port(family, key).in_set(REJECTS, key).reject(family.port_unreachable()));
}

/// Loads destination address, protocol, port.
fn destination(family: Family, at: Register) -> Expressions {
    let rest = Register(at.0 + family.words());
    Expressions::default()
        .network(family.destination_offset(), family.address_bytes(), at)
        .meta(META_L4PROTO, rest)
        .destination_port(Register(rest.0 + 1))
}

/// The same with the unspecified address, for packets to an address of this node.
fn local_port(family: Family, at: Register) -> Expressions {
    let rest = Register(at.0 + family.words());
    Expressions::default()
        .destination_type(at)
        .compare(at, true, &ROUTE_LOCAL.to_ne_bytes())
        .network(family.destination_offset(), family.address_bytes(), at)
        .mask(at, &family.unspecified())
        .meta(META_L4PROTO, rest)
        .destination_port(Register(rest.0 + 1))
}

fn postrouting(batch: &mut Batch, table: &str, family: Family, cluster: &[IpNet], pods: &[IpNet]) {
    let (a, b) = (Register(0), Register(family.words()));
    let (len, name) = (family.address_bytes(), "nat-postrouting");
    let translated = || {
        let mask = CT_STATUS_DNAT.to_ne_bytes();
        Expressions::default().conntrack_status(a).mask(a, &mask).compare(a, false, &[0; 4])
    };
    let hairpin = translated()
        .network(family.source_offset(), len, a)
        .network(family.destination_offset(), len, b)
        .in_set(HAIRPIN, a)
        .masquerade();
    rule(batch, table, name, hairpin);
    let keep =
        Expressions::default().meta(META_MARK, a).mask(a, &MARK_KEEP.to_ne_bytes()).compare(a, false, &[0; 4]).back();
    rule(batch, table, name, keep);
    let outside = outside_of(translated(), family, family.source_offset(), cluster);
    rule(batch, table, name, outside.masquerade());
    for net in pods {
        let from = within(Expressions::default(), family, family.source_offset(), net, true);
        let leaving = outside_of(from, family, family.destination_offset(), cluster);
        rule(batch, table, name, leaving.masquerade());
    }
}

fn outside_of(start: Expressions, family: Family, offset: u32, nets: &[IpNet]) -> Expressions {
    nets.iter().fold(start, |rule, net| within(rule, family, offset, net, false))
}

/// Goes on only if the address at the offset is (or is not) in the range.
fn within(rule: Expressions, family: Family, offset: u32, net: &IpNet, inside: bool) -> Expressions {
    let at = Register(0);
    rule.network(offset, family.address_bytes(), at).mask(at, &octets(net.netmask())).compare(
        at,
        inside,
        &octets(net.network()),
    )
}

/// The chain of a class, with its rules.
pub(crate) fn class(batch: &mut Batch, table: &str, family: Family, class: Class) {
    let name = class.chain();
    chain(batch, table, &name);
    let words = family.words();
    let (source, key) = (Register(0), Register(words));
    let drawn = Register(key.0 + words + 2);
    let port = Register(drawn.0 + words);
    if class.keep_source {
        let mark = Expressions::default().constant(&MARK_KEEP.to_ne_bytes(), source).set_meta(META_MARK, source);
        rule(batch, table, &name, mark);
    }
    for local in [false, true] {
        let load = || with_key(family, key, local);
        if class.affinity_seconds > 0 {
            let known = load()
                .network(family.source_offset(), family.address_bytes(), source)
                .look_up(AFFINITY, source, drawn)
                .in_set(ALIVE, key)
                .dnat(family.number(), drawn, port);
            rule(batch, table, &name, known);
        }
        let mut fresh = load().random(class.endpoints, drawn).look_up(ENDPOINTS, key, drawn);
        if class.affinity_seconds > 0 {
            let milliseconds = u64::from(class.affinity_seconds) * 1000;
            fresh = fresh.network(family.source_offset(), family.address_bytes(), source);
            fresh = fresh.remember(AFFINITY, source, drawn, milliseconds);
        }
        rule(batch, table, &name, fresh.dnat(family.number(), drawn, port));
    }
}

fn with_key(family: Family, key: Register, local: bool) -> Expressions {
    if local { local_port(family, key) } else { destination(family, key) }
}

/// nft(8)'s numbers of data types, so that `nft list` shows the sets; the kernel ignores them.
const TYPE_MARK: u32 = 19;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;

/// The type of a concatenation: six bits a part.
fn concatenation(parts: &[u32]) -> u32 {
    parts.iter().fold(0, |all, part| all << 6 | part)
}

fn sets(batch: &mut Batch, table: &str, family: Family) {
    let address = family.address_type();
    let service = [address, TYPE_PROTOCOL, TYPE_PORT];
    let endpoint = [address, TYPE_PORT];
    let verdict = Some((DATA_VERDICT, 0));
    let target = Some((concatenation(&endpoint), family.length(&endpoint)));
    let sets: [(&str, u32, &[u32], _); 6] = [
        (SERVICES, SET_MAP, &service, verdict),
        (ENDPOINTS, SET_MAP, &[address, TYPE_PROTOCOL, TYPE_PORT, TYPE_MARK], target),
        (REJECTS, 0, &service, None),
        (HAIRPIN, 0, &[address, address], None),
        (AFFINITY, SET_MAP | SET_TIMEOUT | SET_EVAL, &[address, address, TYPE_PROTOCOL, TYPE_PORT], target),
        (ALIVE, 0, &[address, TYPE_PROTOCOL, TYPE_PORT, address, TYPE_PORT], None),
    ];
    for (id, (name, flags, key, data)) in (1..).zip(sets) {
        let set = Attributes::default().string(1, table).string(2, name).be32(3, flags);
        let mut set = set.be32(4, concatenation(key)).be32(5, family.length(key));
        if let Some((kind, length)) = data {
            set = set.be32(6, kind).be32(7, length);
        }
        batch.message(Kind::NewSet, NLM_F_CREATE, &set.be32(10, id));
    }
}

fn chain(batch: &mut Batch, table: &str, name: &str) {
    batch.message(Kind::NewChain, NLM_F_CREATE, &Attributes::default().string(1, table).string(3, name));
}

fn base_chain(batch: &mut Batch, table: &str, name: &str, kind: &str, hook: u32, priority: i32) {
    let hook = Attributes::default().be32(1, hook).bytes(2, &priority.to_be_bytes());
    let attributes = Attributes::default().string(1, table).string(3, name).nest(4, hook).be32(5, 1).string(7, kind);
    batch.message(Kind::NewChain, NLM_F_CREATE, &attributes);
}

fn rule(batch: &mut Batch, table: &str, chain: &str, expressions: Expressions) {
    let attributes = Attributes::default().string(1, table).string(2, chain).nest(4, expressions.list());
    batch.message(Kind::NewRule, NLM_F_CREATE | NLM_F_APPEND, &attributes);
}
