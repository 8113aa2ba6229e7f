//! The chains, rules and sets of a table, and the chains of classes.
//!
//! Register layout in class chains: [client address] frontend address, protocol, port, then the number drawn, which the
//! endpoint's address and port replace, then the side.

use ipnet::IpNet;

use super::elements::{
    ADDRESSES, AFFINITY, ALIVE, Class, ENDPOINTS, HAIRPIN, OUTSIDE, REJECTS, RESTRICTED, Ranges, SERVICES, SOURCES,
};
use super::expression::{CT_STATUS_DNAT, Expressions, META_L4PROTO, ROUTE_LOCAL, Register};
use super::family::{Family, octets};
use crate::nfnetlink::{Attributes, Batch, Kind, NLM_F_APPEND, NLM_F_CREATE};

/// Bit of a packet's mark: the client's address is to be translated, unless it is a pod's of this node.
const MASQUERADE: u32 = 0x4000;
/// Clients that are remembered, of all frontends with affinity. Those beyond find their endpoint by chance.
const CLIENTS: u32 = 1 << 20;

const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const SET_CONCAT: u32 = 0x80;
const DATA_VERDICT: u32 = 0xffff_ff00;

/// Base chains: name, type, hook, priority, and which chains they jump to, for the first packets of a connection. (Chains
/// of type `nat` see no others.)
type BaseChain = (&'static str, &'static str, u32, i32, &'static [&'static str]);

#[rustfmt::skip]
const BASE_CHAINS: [BaseChain; 6] = [
    ("reject-input",    "filter", HOOK_INPUT,         0, &["reject"]),
    ("reject-forward",  "filter", HOOK_FORWARD,       0, &["reject", "unserved"]),
    ("reject-output",   "filter", HOOK_OUTPUT,        0, &["reject", "unserved"]),
    ("nat-prerouting",  "nat",    HOOK_PREROUTING, -100, &["services"]),
    ("nat-output",      "nat",    HOOK_OUTPUT,     -100, &["services"]),
    ("nat-postrouting", "nat",    HOOK_POSTROUTING, 100, &[]),
];

/// The table with its sets, base chains and fixed rules.
pub(crate) fn base(batch: &mut Batch, table: &str, family: Family, ranges: &Ranges) {
    batch.message(Kind::NewTable, NLM_F_CREATE, &Attributes::default().string(1, table));
    sets(batch, table, family);
    ["services", "outside", "reject", "unserved"].iter().for_each(|name| chain(batch, table, name));
    for (name, kind, hook, priority, jumps) in BASE_CHAINS {
        base_chain(batch, table, name, kind, hook, priority);
        for to in jumps {
            let rule_of = Expressions::default();
            let rule_of = if kind == "filter" { rule_of.first_of_connection(Register(0)) } else { rule_of };
            rule(batch, table, name, rule_of.jump(to));
        }
    }
    services(batch, table, family, &ranges.cluster);
    reject(batch, table, family, &ranges.services);
    postrouting(batch, table, family, ranges);
}

/// Keys: the packet's own destination first, then "any local address".
fn services(batch: &mut Batch, table: &str, family: Family, cluster: &[IpNet]) {
    let key = Register(0);
    let source = Register(key.0 + family.words() + 2);
    let stranger = destination(family, key)
        .in_set(RESTRICTED, key)
        .network(family.source_offset(), family.address_bytes(), source)
        .not_in_set(SOURCES, key);
    rule(batch, table, "services", stranger.drop());
    let foreign = outside_of(Expressions::default(), family, family.source_offset(), cluster);
    let foreign = foreign.source_type(key).compare(key, false, &ROUTE_LOCAL.to_ne_bytes());
    rule(batch, table, "services", foreign.jump("outside"));
    for (chain, map) in [("outside", OUTSIDE), ("services", SERVICES)] {
        rule(batch, table, chain, destination(family, key).verdict_of(map, key));
        rule(batch, table, chain, local_port(family, key).verdict_of(map, key));
    }
}

/// Frontends without endpoints; then, of what nothing has translated, other ports of services and addresses of none.
fn reject(batch: &mut Batch, table: &str, family: Family, services: &[IpNet]) {
    let (key, code) = (Register(0), family.port_unreachable());
    rule(batch, table, "reject", destination(family, key).in_set(REJECTS, key).reject(code));
    rule(batch, table, "reject", local_port(family, key).in_set(REJECTS, key).reject(code));
    let address = Expressions::default().network(family.destination_offset(), family.address_bytes(), key);
    rule(batch, table, "unserved", address.in_set(ADDRESSES, key).reject(code));
    for net in services {
        let inside = within(Expressions::default(), family, family.destination_offset(), net, true);
        rule(batch, table, "unserved", inside.drop());
    }
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

fn postrouting(batch: &mut Batch, table: &str, family: Family, ranges: &Ranges) {
    let (a, b) = (Register(0), Register(family.words()));
    let (len, name) = (family.address_bytes(), "nat-postrouting");
    let hairpin = Expressions::default()
        .has_status(CT_STATUS_DNAT, a)
        .network(family.source_offset(), len, a)
        .network(family.destination_offset(), len, b)
        .in_set(HAIRPIN, a);
    rule(batch, table, name, hairpin.masquerade());
    // What a pod of this node is answered comes back through this node anyway.
    let led = Expressions::default().has_mark(MASQUERADE, a);
    let elsewhere = outside_of(led, family, family.source_offset(), &ranges.pods);
    rule(batch, table, name, elsewhere.masquerade());
    for net in &ranges.pods {
        let from = within(Expressions::default(), family, family.source_offset(), net, true);
        let leaving = outside_of(from, family, family.destination_offset(), &ranges.cluster);
        rule(batch, table, name, leaving.masquerade());
    }
}

fn outside_of(start: Expressions, family: Family, offset: u32, nets: &[IpNet]) -> Expressions {
    nets.iter().fold(start, |rule, net| within(rule, family, offset, net, false))
}

/// Goes on only if the address at the offset is (or is not) in the range.
fn within(rule: Expressions, family: Family, offset: u32, net: &IpNet, inside: bool) -> Expressions {
    let at = Register(0);
    let masked = rule.network(offset, family.address_bytes(), at).mask(at, &octets(net.netmask()));
    masked.compare(at, inside, &octets(net.network()))
}

/// The chain of a class, with its rules.
pub(crate) fn class(batch: &mut Batch, table: &str, family: Family, class: Class) {
    let name = class.chain();
    chain(batch, table, &name);
    let words = family.words();
    let (source, key) = (Register(0), Register(words));
    let drawn = Register(key.0 + words + 2);
    let port = Register(drawn.0 + words);
    let side = Register(port.0 + 1);
    if !class.keep_source {
        rule(batch, table, &name, Expressions::default().set_mark(MASQUERADE, source));
    }
    let client = |load: Expressions| load.network(family.source_offset(), family.address_bytes(), source);
    let translated = |to: Expressions| to.dnat(family.number(), drawn, port);
    let milliseconds = u64::from(class.affinity_seconds) * 1000;
    for local in [false, true] {
        let load = || if local { local_port(family, key) } else { destination(family, key) };
        let fresh = || load().random(class.side.offset(), class.endpoints, drawn).look_up(ENDPOINTS, key, drawn);
        if class.affinity_seconds > 0 {
            let known = client(load()).look_up(AFFINITY, source, drawn);
            let known = known.constant(&class.side.offset().to_ne_bytes(), side).in_set(ALIVE, key);
            rule(batch, table, &name, translated(known.remember(AFFINITY, source, drawn, milliseconds)));
            let first = client(fresh()).forget(AFFINITY, source, drawn);
            rule(batch, table, &name, translated(first.remember(AFFINITY, source, drawn, milliseconds)));
        }
        // With affinity, for clients that there was no room to remember.
        rule(batch, table, &name, translated(fresh()));
    }
}

/// nft(8)'s numbers of data types, so that `nft list` shows the sets; the kernel ignores them.
const TYPE_MARK: u32 = 19;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;

/// The type of a concatenation: six bits a part.
fn concatenation(parts: &[u32]) -> u32 {
    parts.iter().fold(0, |all, part| all << 6 | part)
}

/// The bytes of a part.
fn size(family: Family, part: u32) -> u32 {
    match part {
        TYPE_PROTOCOL => 1,
        TYPE_PORT => 2,
        TYPE_MARK => 4,
        _ => family.address_bytes(),
    }
}

/// The bytes of a concatenation: every part fills whole registers.
fn length(family: Family, parts: &[u32]) -> u32 {
    parts.iter().map(|part| size(family, *part).next_multiple_of(4)).sum()
}

fn sets(batch: &mut Batch, table: &str, family: Family) {
    let address = family.address_type();
    let service = [address, TYPE_PROTOCOL, TYPE_PORT];
    let endpoint = [address, TYPE_PORT];
    let verdict = Some((DATA_VERDICT, 0));
    let target = Some((concatenation(&endpoint), length(family, &endpoint)));
    #[rustfmt::skip]
    let sets: [(&str, u32, &[u32], _); 10] = [
        (SERVICES,   SET_MAP, &service, verdict),
        (OUTSIDE,    SET_MAP, &service, verdict),
        (ENDPOINTS,  SET_MAP, &[address, TYPE_PROTOCOL, TYPE_PORT, TYPE_MARK], target),
        (REJECTS,    0, &service, None),
        (HAIRPIN,    0, &[address, address], None),
        (ADDRESSES,  0, &[address], None),
        (AFFINITY,   SET_MAP | SET_TIMEOUT | SET_EVAL, &[address, address, TYPE_PROTOCOL, TYPE_PORT], target),
        (ALIVE,      0, &[address, TYPE_PROTOCOL, TYPE_PORT, address, TYPE_PORT, TYPE_MARK], None),
        (RESTRICTED, 0, &service, None),
        (SOURCES,    SET_INTERVAL | SET_CONCAT, &[address, TYPE_PROTOCOL, TYPE_PORT, address], None),
    ];
    for (id, (name, flags, key, data)) in (1..).zip(sets) {
        let set = Attributes::default().string(1, table).string(2, name).be32(3, flags);
        let mut set = set.be32(4, concatenation(key)).be32(5, length(family, key));
        if let Some((kind, length)) = data {
            set = set.be32(6, kind).be32(7, length);
        }
        if let Some(description) = description(family, flags, key) {
            set = set.nest(9, description);
        }
        batch.message(Kind::NewSet, NLM_F_CREATE, &set.be32(10, id));
    }
}

/// How many elements a set takes that packets fill; the parts of a concatenation of ranges.
fn description(family: Family, flags: u32, key: &[u32]) -> Option<Attributes> {
    if flags & SET_EVAL != 0 {
        return Some(Attributes::default().be32(1, CLIENTS));
    }
    let part = |all: Attributes, part: &u32| all.nest(1, Attributes::default().be32(1, size(family, *part)));
    let parts = || key.iter().fold(Attributes::default(), part);
    (flags & SET_CONCAT != 0).then(|| Attributes::default().nest(2, parts()))
}

fn chain(batch: &mut Batch, table: &str, name: &str) {
    batch.message(Kind::NewChain, NLM_F_CREATE, &Attributes::default().string(1, table).string(3, name));
}

/// Deletes a chain and its rules, which nothing may lead to.
pub(crate) fn delete_chain(batch: &mut Batch, table: &str, name: &str) {
    batch.message(Kind::DelChain, 0, &Attributes::default().string(1, table).string(3, name));
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
