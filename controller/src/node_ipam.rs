//! Gives every node its part of the cluster's pod networks (`pkg/controller/nodeipam`, the range allocator).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Node;
use reconcile::effect::reference;
use reconcile::{Change, Controller, Decider, Effect, Key, Outcome, Timestamp, Watch, World};
use serde_json::json;

/// The most parts looked through before a network counts as used up.
const MOST_PARTS: u128 = 1 << 20;

/// A network to cut into parts of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    base: u128,
    v6: bool,
    prefix: u8,
    part: u8,
}

impl Pool {
    /// A network in CIDR notation, and the prefix length of its parts.
    pub fn new(cidr: &str, part: u8) -> Option<Self> {
        let (address, prefix) = cidr.split_once('/')?;
        let (base, v6) = match address.parse().ok()? {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), false),
            IpAddr::V6(v6) => (v6.to_bits(), true),
        };
        let prefix: u8 = prefix.parse().ok()?;
        let bits = if v6 { 128 } else { 32 };
        (prefix <= part && part <= bits).then_some(Self { base, v6, prefix, part })
    }

    fn bits(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    fn part(&self, n: u128) -> String {
        let address = self.base + n.checked_shl(u32::from(self.bits() - self.part)).unwrap_or_default();
        let address = match self.v6 {
            true => IpAddr::V6(Ipv6Addr::from_bits(address)),
            false => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(address).unwrap_or_default())),
        };
        format!("{address}/{}", self.part)
    }

    /// The first part that nobody has.
    fn free(&self, taken: &BTreeSet<&str>) -> Option<String> {
        let parts = 1u128.checked_shl(u32::from(self.part - self.prefix)).unwrap_or(MOST_PARTS).min(MOST_PARTS);
        (0..parts).map(|n| self.part(n)).find(|part| !taken.contains(part.as_str()))
    }
}

/// The node IPAM controller.
pub struct NodeIpam {
    /// One network a family.
    pub pools: Vec<Pool>,
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn component(&self) -> &'static str {
        "cidrAllocator"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Node>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let own = change.key_of::<Node>();
        if change.after.is_some() {
            return own.into_iter().collect();
        }
        // A network came free: those that got none try again.
        let without = world.list::<Node>().filter(|n| cidrs(n).next().is_none());
        without.map(|n| Key::of::<Node>(reconcile::resource::name_of(&n.metadata))).collect()
    }

    /// One at a time: each decision must see the networks that the one before gave away.
    fn workers(&self) -> usize {
        1
    }
}

fn cidrs(node: &Node) -> impl Iterator<Item = &str> {
    node.spec.iter().flat_map(|s| s.pod_cidrs.iter().flatten().chain(&s.pod_cidr)).map(String::as_str)
}

impl Decider for NodeIpam {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, _: Timestamp) -> Outcome<Effect> {
        let Some(node) = world.get::<Node>(&key.object) else {
            return Outcome::nothing("Gone", "the node does not exist");
        };
        if cidrs(node).next().is_some() {
            return Outcome::nothing("HasNetworks", "the node has its networks");
        }
        let taken: BTreeSet<&str> = world.list::<Node>().flat_map(cidrs).collect();
        let parts: Option<Vec<String>> = self.pools.iter().map(|pool| pool.free(&taken)).collect();
        let Some(parts) = parts else {
            let mut outcome = Outcome::nothing("NoNetworkLeft", "the cluster's networks are used up");
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            outcome.effect(Effect::normal(reference(node), "CIDRNotAvailable", message));
            return outcome;
        };
        let mut outcome = Outcome::nothing("Assigned", parts.join(", "));
        outcome.effect(Effect::patch(node, json!({"spec": {"podCIDR": parts.first(), "podCIDRs": parts}})));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Pool;

    #[test]
    fn parts_are_given_in_order_until_none_is_left() {
        let pool = Pool::new("10.244.0.0/23", 24).unwrap();
        assert_eq!(pool.free(&BTreeSet::new()).as_deref(), Some("10.244.0.0/24"));
        assert_eq!(pool.free(&BTreeSet::from(["10.244.0.0/24"])).as_deref(), Some("10.244.1.0/24"));
        assert_eq!(pool.free(&BTreeSet::from(["10.244.0.0/24", "10.244.1.0/24"])), None);
        let v6 = Pool::new("fd00:10::/48", 64).unwrap();
        assert_eq!(v6.free(&BTreeSet::from(["fd00:10::/64"])).as_deref(), Some("fd00:10:0:1::/64"));
    }
}
