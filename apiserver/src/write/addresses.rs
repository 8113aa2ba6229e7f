//! Addresses of the service ranges: who has one is an IPAddress object, whose key is the address itself
//! (`pkg/registry/core/service/ipallocator`). kube-apiserver on the same etcd sees and honours them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::field::{Error, Path};
use api::{Document, Status, Timestamp, time};
use ipnet::IpNet;
use serde_json::json;

use super::allocate::{cluster_ips, family, refuse};
use super::machine::{Machine, Stepped};

/// Where IPAddress objects stand.
const PREFIX: &str = "/registry/ipaddresses/";
/// So many guesses before one address after the other is looked at.
const GUESSES: usize = 8;

/// The key of an address.
pub(crate) fn key(address: &IpAddr) -> String {
    format!("{PREFIX}{address}")
}

/// The address of a key, where it is one.
pub(super) fn of_key(key: &str) -> Option<IpAddr> {
    key.strip_prefix(PREFIX)?.parse().ok()
}

/// The object that says that a service has an address.
pub(crate) fn object(address: &IpAddr, service: &Document, uid: String, now: Timestamp) -> Document {
    let parent = json!({"resource": "services", "namespace": service.namespace(), "name": service.name()});
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": family(address),
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    });
    let object = json!({
        "kind": "IPAddress",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": address.to_string(), "uid": uid, "labels": labels,
            "creationTimestamp": time::rfc3339(now)},
        "spec": {"parentRef": parent},
    });
    Document::new(object).unwrap_or_default()
}

fn taken(machine: &Machine<'_>, address: &IpAddr) -> bool {
    machine.snapshot.object(&key(address)).is_some()
}

/// An address that the client asked for must be in range and free.
pub(super) fn wanted(
    machine: &Machine<'_>,
    service: &Document,
    address: IpAddr,
    held: &BTreeSet<String>,
) -> Stepped<()> {
    if held.contains(&key(&address)) {
        return Ok(());
    }
    let path = Path::new("spec.clusterIPs");
    let listed: Vec<String> = cluster_ips(service).iter().map(ToString::to_string).collect();
    let refused = |why: String| {
        let why = format!("failed to allocate IP {address}: {why}");
        Err(refuse(service, Error::invalid(path, json!(listed), why)))
    };
    let ranges = &machine.request.settings.service_cidrs;
    match ranges.iter().find(|range| range.addr().is_ipv4() == address.is_ipv4()) {
        None => refused("the provided IP is not in the valid range".into()),
        Some(range) if !usable(range, &address) => {
            let given = format!("the provided IP ({address}) is not in the valid range");
            refused(format!("{given}. The range of valid IPs is {range}"))
        }
        // Upstream's dry run does not look at what others have.
        Some(_) if !machine.request.dry_run() && taken(machine, &address) => {
            refused("provided IP is already allocated".into())
        }
        Some(_) => Ok(()),
    }
}

/// Not the network's own address, nor the broadcast one.
fn usable(range: &IpNet, address: &IpAddr) -> bool {
    range.contains(address) && *address != range.network() && (address.is_ipv6() || *address != range.broadcast())
}

fn nth(range: &IpNet, index: u64) -> IpAddr {
    match range {
        IpNet::V4(net) => {
            let index = u32::try_from(index).unwrap_or_default();
            IpAddr::V4(u32::from(net.network()).wrapping_add(index).into())
        }
        IpNet::V6(net) => IpAddr::V6((u128::from(net.network()).wrapping_add(u128::from(index))).into()),
    }
}

/// How many addresses of a range are given out at random; of large ones the first 64 Ki.
fn size(range: &IpNet) -> u64 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(16);
    1 << bits
}

/// A free address of a family.
pub(super) fn pick(machine: &mut Machine<'_>, wanted: &str) -> Stepped<IpAddr> {
    let found = machine.request.settings.service_cidrs.iter().find(|range| family(&range.addr()) == wanted);
    let Some(range) = found.copied() else {
        return Err(Status::internal(format!("failed to allocate a serviceIP: no range for {wanted}")).into());
    };
    let size = size(&range);
    let nth = |n: u64| Some(nth(&range, n)).filter(|address| usable(&range, address));
    // The first sixteenth (16 to 256 addresses) is left to those who ask for an address.
    let reserved = (size / 16).clamp(16.min(size / 2), 256);
    for _ in 0..GUESSES {
        let n = reserved + machine.entropy.below(size - reserved);
        if let Some(address) = nth(n).filter(|address| !taken(machine, address)) {
            return Ok(address);
        }
    }
    // From anywhere on: who looks at the same time then seldom finds the same one.
    let turn = machine.entropy.next_u64();
    let from_anywhere =
        |low: u64, high: u64| (0..high - low).map(move |n| low + (turn % (high - low) + n) % (high - low));
    let mut later = from_anywhere(reserved, size).chain(from_anywhere(0, reserved)).filter_map(nth);
    let free = later.find(|address| !taken(machine, address));
    free.ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full").into())
}
