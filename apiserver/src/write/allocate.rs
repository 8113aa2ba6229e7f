//! Cluster addresses and node ports of services, taken and released in the transaction that writes the service: an
//! address is an IPAddress object, a port a key of its own, so that neither can leak or be given twice.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::field::{Error, Path};
use api::{Document, Status};
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Op, Txn};

use super::machine::{Machine, Stepped, Stop, free, put, remove};
use super::{Ask, Known, addresses};

/// So many guesses before the whole range is asked for.
const GUESSES: usize = 8;

/// Gives a service what its type needs; runs before it is prepared and validated, as upstream does.
pub(super) fn assign(machine: &mut Machine<'_>, new: &mut Document, old: Option<&Document>) -> Stepped<()> {
    let prefix = machine.request.settings.own_prefix.clone();
    let held: BTreeSet<String> = old.map(|old| keys(&prefix, old)).unwrap_or_default();
    if let Some(old) = old {
        keep_assigned(new, old);
    }
    normalise(new, old);
    cluster_addresses(machine, new, &held)?;
    node_ports(machine, new, &held)
}

/// Claims what the new state holds and the old one does not, and releases what it no longer holds.
pub(super) fn claim(machine: &mut Machine<'_>, new: &Document, old: Option<&Document>, txn: &mut Txn) {
    let prefix = &machine.request.settings.own_prefix;
    let held: BTreeSet<String> = old.map(|old| keys(prefix, old)).unwrap_or_default();
    let wanted = keys(prefix, new);
    for key in wanted.difference(&held) {
        txn.compare.push(free(key));
        txn.ops.push(match addresses::of_key(key) {
            Some(address) => put(key, &addresses::object(&address, new, machine.entropy.uuid(), machine.now()), 0),
            None => {
                let owner = format!("{}/{}", new.namespace(), new.name());
                Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: owner.into(), lease: 0 }
            }
        });
    }
    txn.ops.extend(held.difference(&wanted).map(|key| remove(key)));
}

fn is_balanced(service: &Document) -> bool {
    matches!(service.str_at("/spec/type"), "NodePort" | "LoadBalancer")
}

/// An update that leaves assigned values out keeps them (upstream's `patchAllocatedValues`).
fn keep_assigned(new: &mut Document, old: &Document) {
    let named = |service: &Document| service.str_at("/spec/type") == "ExternalName";
    if !named(new) && !named(old) {
        if new.str_at("/spec/clusterIP").is_empty() && new.list_at("/spec/clusterIPs").is_empty() {
            new.set("/spec/clusterIP", old.str_at("/spec/clusterIP"));
        }
        let same = new.str_at("/spec/clusterIP") == old.str_at("/spec/clusterIP");
        if same && new.list_at("/spec/clusterIPs").is_empty() {
            new.set("/spec/clusterIPs", old.list_at("/spec/clusterIPs").to_vec());
        }
    }
    if is_balanced(new) && is_balanced(old) {
        keep_ports(new, old);
    }
}

fn keep_ports(new: &mut Document, old: &Document) {
    let same = |a: &Value, b: &Value| protocol(a) == protocol(b) && a.get("port") == b.get("port");
    let mut ports = new.list_at("/spec/ports").to_vec();
    for port in &mut ports {
        let given = port.get("nodePort").and_then(Value::as_u64).unwrap_or_default();
        let before = old.list_at("/spec/ports").iter().find(|before| same(before, port));
        if let (0, Some(number), Some(map)) = (given, before.and_then(|b| b.get("nodePort")), port.as_object_mut()) {
            map.insert("nodePort".into(), number.clone());
        }
    }
    new.set("/spec/ports", ports);
}

/// `clusterIP` and `clusterIPs` say the same (upstream's `normalizeClusterIPs`); what does not fit is for validation.
fn normalise(new: &mut Document, old: Option<&Document>) {
    let single = new.str_at("/spec/clusterIP").to_owned();
    let listed = !new.list_at("/spec/clusterIPs").is_empty();
    let Some(old) = old else {
        if !single.is_empty() && !listed {
            new.set("/spec/clusterIPs", json!([single]));
        }
        return;
    };
    let same_list = new.list_at("/spec/clusterIPs") == old.list_at("/spec/clusterIPs");
    if single == old.str_at("/spec/clusterIP") || !same_list {
        return;
    }
    match single.as_str() {
        "" => drop(new.remove("/spec/clusterIPs")),
        given => new.set("/spec/clusterIPs", json!([given])),
    }
}

/// Releases all that a service holds.
pub(super) fn release(machine: &Machine<'_>, service: &Document, txn: &mut Txn) {
    let held = keys(&machine.request.settings.own_prefix, service);
    let known: BTreeSet<&Bytes> = txn.ops.iter().map(Op::key).collect();
    let ops: Vec<Op> = held.iter().map(|key| remove(key)).filter(|op| !known.contains(op.key())).collect();
    txn.ops.extend(ops);
}

/// The keys of everything a service holds.
fn keys(prefix: &str, service: &Document) -> BTreeSet<String> {
    let mut keys: BTreeSet<String> = cluster_ips(service).iter().map(addresses::key).collect();
    let ports = service.list_at("/spec/ports").iter();
    for port in ports {
        if let Some(number) = port.get("nodePort").and_then(Value::as_u64).filter(|n| *n > 0) {
            keys.insert(port_key(prefix, protocol(port), number));
        }
    }
    if let Some(number) = service.i64_at("/spec/healthCheckNodePort").filter(|n| *n > 0) {
        keys.insert(port_key(prefix, "TCP", number.unsigned_abs()));
    }
    keys
}

fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

fn port_key(prefix: &str, protocol: &str, number: u64) -> String {
    format!("{prefix}nodeports/{number}/{protocol}")
}

/// The addresses a service has; headless ones and names have none.
pub(crate) fn cluster_ips(service: &Document) -> Vec<IpAddr> {
    let listed = service.list_at("/spec/clusterIPs").iter().filter_map(|v| v.as_str()?.parse().ok());
    let listed: Vec<IpAddr> = listed.collect();
    match listed.is_empty() {
        true => service.str_at("/spec/clusterIP").parse().ok().into_iter().collect(),
        false => listed,
    }
}

fn cluster_addresses(machine: &mut Machine<'_>, service: &mut Document, held: &BTreeSet<String>) -> Stepped<()> {
    let readable = |v: &Value| v.as_str().is_some_and(|ip| ip == "None" || ip.parse::<IpAddr>().is_ok());
    let broken = !service.list_at("/spec/clusterIPs").iter().all(readable);
    let first = service.list_at("/spec/clusterIPs").first().and_then(Value::as_str);
    // What contradicts itself is for validation.
    let at_odds = first.is_some_and(|first| first != service.str_at("/spec/clusterIP"));
    if service.str_at("/spec/type") == "ExternalName" || broken || at_odds {
        return Ok(());
    }
    families(machine, service)?;
    if service.str_at("/spec/clusterIP") == "None" {
        return Ok(());
    }
    let mut given = cluster_ips(service);
    let families: Vec<String> =
        service.list_at("/spec/ipFamilies").iter().filter_map(|f| f.as_str().map(str::to_owned)).collect();
    for (index, family) in families.iter().enumerate() {
        match given.get(index) {
            Some(address) => addresses::wanted(machine, service, *address, held)?,
            None => {
                let address = addresses::pick(machine, family)?;
                given.push(address);
            }
        }
    }
    given.truncate(families.len());
    if let Some(first) = given.first() {
        service.set("/spec/clusterIP", first.to_string());
        service.set("/spec/clusterIPs", given.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    Ok(())
}

pub(super) fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// `ipFamilies` and `ipFamilyPolicy` follow the addresses given, the policy, and what the cluster has.
fn families(machine: &Machine<'_>, service: &mut Document) -> Stepped<()> {
    let cidrs = &machine.request.settings.service_cidrs;
    let available: Vec<&str> = cidrs.iter().map(|cidr| family(&cidr.addr())).collect();
    let mut wanted: Vec<String> =
        service.list_at("/spec/ipFamilies").iter().filter_map(|f| f.as_str().map(str::to_owned)).collect();
    for address in cluster_ips(service) {
        let of_address = family(&address).to_owned();
        if !wanted.contains(&of_address) {
            wanted.push(of_address);
        }
    }
    if wanted.is_empty() {
        wanted.extend(available.first().map(|f| (*f).to_owned()));
    }
    let policy = service.str_at("/spec/ipFamilyPolicy").to_owned();
    if policy.is_empty() && headless_without_selector(service) {
        // Its endpoints are the user's own, of any family.
        let mut both = wanted;
        both.extend(
            ["IPv4", "IPv6"]
                .iter()
                .filter(|f| !both.iter().any(|b| b == *f))
                .map(|f| (*f).to_owned())
                .collect::<Vec<_>>(),
        );
        service.set("/spec/ipFamilyPolicy", "RequireDualStack");
        service.set("/spec/ipFamilies", both);
        return Ok(());
    }
    if headless_without_selector(service) {
        service.set("/spec/ipFamilies", wanted);
        return Ok(());
    }
    let dual = matches!(policy.as_str(), "PreferDualStack" | "RequireDualStack");
    if policy == "RequireDualStack" && available.len() < 2 {
        let path = Path::new("spec.ipFamilyPolicy");
        let why = "this cluster is not configured for dual-stack services";
        return Err(refuse(service, Error::invalid(path, policy, why)));
    }
    for (index, family) in wanted.iter().enumerate() {
        if !available.contains(&family.as_str()) {
            let path = Path::new("spec.ipFamilies").index(index);
            return Err(refuse(service, Error::invalid(path, family.as_str(), "not configured on this cluster")));
        }
    }
    if dual {
        let missing = available.iter().find(|f| !wanted.iter().any(|w| w == *f));
        wanted.extend(missing.map(|f| (*f).to_owned()));
    }
    service.set_default("/spec/ipFamilyPolicy", if wanted.len() > 1 { "RequireDualStack" } else { "SingleStack" });
    service.set("/spec/ipFamilies", wanted);
    Ok(())
}

fn headless_without_selector(service: &Document) -> bool {
    let selector = service.at("/spec/selector").and_then(Value::as_object);
    service.str_at("/spec/clusterIP") == "None" && selector.is_none_or(serde_json::Map::is_empty)
}

fn node_ports(machine: &mut Machine<'_>, service: &mut Document, held: &BTreeSet<String>) -> Stepped<()> {
    let kind = service.str_at("/spec/type").to_owned();
    let balancer = kind == "LoadBalancer";
    let wants = kind == "NodePort"
        || (balancer && service.at("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false));
    if !matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        return Ok(());
    }
    let mut ports = service.list_at("/spec/ports").to_vec();
    let mut mine: Vec<(u64, String)> = Vec::new();
    for (index, port) in ports.iter_mut().enumerate() {
        let given = port.get("nodePort").and_then(Value::as_u64).filter(|n| *n > 0);
        let of = protocol(port).to_owned();
        let number = match given {
            Some(number) => {
                wanted_port(machine, service, number, &of, index, held)?;
                number
            }
            None if wants => match mine.iter().find(|(_, p)| *p != of).filter(|(n, _)| same_port(port, *n, &mine, &of))
            {
                Some((number, _)) => *number,
                None => pick_port(machine, &of, &mine)?,
            },
            None => continue,
        };
        mine.push((number, of));
        if let Some(port) = port.as_object_mut() {
            port.insert("nodePort".into(), number.into());
        }
    }
    service.set("/spec/ports", ports);
    let local = service.str_at("/spec/externalTrafficPolicy") == "Local";
    if balancer && local && service.i64_at("/spec/healthCheckNodePort").unwrap_or_default() == 0 {
        let number = pick_port(machine, "TCP", &mine)?;
        service.set("/spec/healthCheckNodePort", number);
    }
    Ok(())
}

/// Ports of one number in two protocols share a node port; here only where the number is not taken by the same one.
fn same_port(_port: &Value, number: u64, mine: &[(u64, String)], protocol: &str) -> bool {
    !mine.iter().any(|(n, p)| *n == number && p == protocol) && mine.len() == 1
}

fn wanted_port(
    machine: &Machine<'_>,
    service: &Document,
    number: u64,
    protocol: &str,
    index: usize,
    held: &BTreeSet<String>,
) -> Stepped<()> {
    let settings = &machine.request.settings;
    let key = port_key(&settings.own_prefix, protocol, number);
    // Upstream allocates no port on a dry run, and then looks at none.
    if held.contains(&key) || machine.request.dry_run() {
        return Ok(());
    }
    let path = Path::new("spec.ports").index(index).child("nodePort");
    let (low, high) = settings.node_ports;
    if number < u64::from(low) || number > u64::from(high) {
        let why = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
        return Err(refuse(service, Error::invalid(path, number, why)));
    }
    match machine.snapshot.key(&key) {
        Known::Taken => Err(refuse(service, Error::invalid(path, number, "provided port is already allocated"))),
        Known::Unknown => Err(Stop::Ask(Ask::Read(key))),
        Known::Free => Ok(()),
    }
}

fn pick_port(machine: &mut Machine<'_>, protocol: &str, mine: &[(u64, String)]) -> Stepped<u64> {
    let settings = &machine.request.settings;
    let (low, high) = settings.node_ports;
    let (low, size) = (u64::from(low), u64::from(high.saturating_sub(low)) + 1);
    let key = |number: u64| port_key(&settings.own_prefix, protocol, number);
    if machine.request.dry_run() {
        // Upstream's stand-ins for ports that are not really allocated.
        return Ok(mine.iter().map(|(n, _)| *n).max().unwrap_or_default().max(32768) + 1);
    }
    let unused = |number: &u64| !mine.iter().any(|(n, _)| n == number);
    for _ in 0..GUESSES {
        let number = low + machine.entropy.below(size);
        if unused(&number) && machine.snapshot.key(&key(number)) != Known::Taken {
            return Ok(number);
        }
    }
    let all = format!("{}nodeports/", settings.own_prefix);
    let Some(taken) = machine.snapshot.keys(&all) else { return Err(Stop::Ask(Ask::List(all))) };
    let is_free = |n: &u64| unused(n) && !taken.contains(&key(*n)) && machine.snapshot.key(&key(*n)) != Known::Taken;
    // From anywhere on: who looks at the same time then seldom finds the same one.
    let turn = machine.entropy.below(size);
    let found = (0..size).map(|n| low + (turn + n) % size).find(is_free);
    found.ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full").into())
}

pub(super) fn refuse(service: &Document, error: Error) -> Stop {
    let kind = api::GroupKind { group: String::new(), kind: "Service".into() };
    Status::invalid(&kind, service.name(), &[error]).into()
}
