//! Subsets in their canonical form, and cut to the most that Endpoints hold (`pkg/api/v1/endpoints`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};

/// The most addresses in one Endpoints; more are left out and an annotation says so.
const MOST: usize = 1000;

/// What tells addresses apart: the IP and the uid of what is behind it.
type Host = (String, String);
/// What tells ports apart; a subset without ports has the default one.
type Port = Option<(Option<String>, i32, Option<String>, Option<String>)>;

fn host(address: &EndpointAddress) -> Host {
    let uid = address.target_ref.as_ref().and_then(|t| t.uid.clone());
    (address.ip.clone(), uid.unwrap_or_default())
}

fn port(port: &EndpointPort) -> Port {
    Some((port.name.clone(), port.port, port.protocol.clone(), port.app_protocol.clone()))
}

/// The same addresses at the same ports in as few subsets as can be: ports that the same hosts offer share one. An
/// address that is ready in one place and not in another at the same port is not.
pub(crate) fn repack(subsets: impl Iterator<Item = EndpointSubset>) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<Host, EndpointAddress> = BTreeMap::new();
    let mut hosts_of: BTreeMap<Port, BTreeMap<Host, bool>> = BTreeMap::new();
    for subset in subsets {
        let ports: Vec<Port> = match subset.ports.as_deref().unwrap_or_default() {
            [] => vec![None],
            ports => ports.iter().map(port).collect(),
        };
        let ready = subset.addresses.into_iter().flatten().map(|a| (a, true));
        for (address, ready) in ready.chain(subset.not_ready_addresses.into_iter().flatten().map(|a| (a, false))) {
            let host = host(&address);
            addresses.entry(host.clone()).or_insert(address);
            for port in &ports {
                let known = hosts_of.entry(port.clone()).or_default().entry(host.clone()).or_insert(ready);
                *known &= ready;
            }
        }
    }
    let mut ports_of: BTreeMap<BTreeMap<Host, bool>, Vec<Port>> = BTreeMap::new();
    for (port, hosts) in hosts_of {
        ports_of.entry(hosts).or_default().push(port);
    }
    let mut packed: Vec<(Vec<Port>, BTreeMap<Host, bool>)> = ports_of.into_iter().map(|(h, p)| (p, h)).collect();
    packed.sort();
    packed.into_iter().map(|(ports, hosts)| subset(ports, &hosts, &addresses)).collect()
}

fn subset(ports: Vec<Port>, hosts: &BTreeMap<Host, bool>, all: &BTreeMap<Host, EndpointAddress>) -> EndpointSubset {
    let some = |list: Vec<EndpointAddress>| Some(list).filter(|l| !l.is_empty());
    let those = |ready: bool| hosts.iter().filter(move |(_, r)| **r == ready).filter_map(|(h, _)| all.get(h).cloned());
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .flatten()
        .map(|p| EndpointPort { name: p.0, port: p.1, protocol: p.2, app_protocol: p.3 })
        .collect();
    EndpointSubset {
        addresses: some(those(true).collect()),
        not_ready_addresses: some(those(false).collect()),
        ports: Some(ports).filter(|p| !p.is_empty()),
    }
}

/// Leaves addresses beyond the most out, those that are not ready first, of each subset in proportion. Says whether
/// there were any.
pub(super) fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let sum = |of: fn(&EndpointSubset) -> usize| subsets.iter().map(of).sum::<usize>();
    let (ready, not_ready) = (sum(ready), sum(unready));
    if ready + not_ready <= MOST {
        return false;
    }
    let cut_ready = ready > MOST;
    let (most, total) = if cut_ready { (MOST, ready) } else { (MOST - ready, not_ready) };
    let mut left = most;
    for subset in subsets {
        if cut_ready {
            subset.not_ready_addresses = None;
        }
        let list = if cut_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let have = list.as_ref().map_or(0, Vec::len);
        let share = (have * most).div_ceil(total).min(left);
        left -= share.min(have);
        list.iter_mut().for_each(|l| l.truncate(share));
        *list = list.take().filter(|l| !l.is_empty());
    }
    true
}

fn ready(subset: &EndpointSubset) -> usize {
    subset.addresses.as_ref().map_or(0, Vec::len)
}

fn unready(subset: &EndpointSubset) -> usize {
    subset.not_ready_addresses.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};

    use super::{ready, repack, truncate, unready};

    fn addresses(ips: &str) -> Option<Vec<EndpointAddress>> {
        let of = |ip: &str| EndpointAddress { ip: ip.into(), ..EndpointAddress::default() };
        Some(ips.split_whitespace().map(of).collect::<Vec<_>>()).filter(|l| !l.is_empty())
    }

    /// `ready | not ready | ports`
    fn subset(text: &str) -> EndpointSubset {
        let [ready, unready, ports] = text.split('|').collect::<Vec<_>>().try_into().unwrap();
        let port = |p: &str| EndpointPort { port: p.parse().unwrap(), ..EndpointPort::default() };
        let ports: Vec<EndpointPort> = ports.split_whitespace().map(port).collect();
        let (addresses, not_ready_addresses) = (addresses(ready), addresses(unready));
        EndpointSubset { addresses, not_ready_addresses, ports: Some(ports).filter(|p| !p.is_empty()) }
    }

    fn check(subsets: &[&str], packed: &[&str]) {
        let want: Vec<EndpointSubset> = packed.iter().map(|s| subset(s)).collect();
        assert_eq!(repack(subsets.iter().map(|s| subset(s))), want);
        assert_eq!(repack(want.iter().cloned()), want, "packed twice");
    }

    #[test]
    fn ports_that_the_same_hosts_offer_share_a_subset() {
        check(&["b||1", "b||2", "a||1", "a||2"], &["a b||1 2"]);
        check(&["a||1 2", "b||1"], &["a b||1", "a||2"]);
        check(&["a|b|1", "|a|1"], &["|a b|1"]);
        check(&["a||", "|b|"], &["a|b|"]);
        check(&["a||1", "|a|2"], &["a||1", "|a|2"]);
    }

    #[test]
    fn what_is_not_ready_is_left_out_first_and_the_rest_in_proportion() {
        let many = |n: usize| (0..n).map(|i| format!("{i}")).collect::<Vec<_>>().join(" ");
        let cut = |texts: &[String]| {
            let mut subsets: Vec<EndpointSubset> = texts.iter().map(|t| subset(t)).collect();
            let over = truncate(&mut subsets);
            (over, subsets.iter().map(|s| (ready(s), unready(s))).collect::<Vec<_>>())
        };
        assert_eq!(cut(&[format!("{}|{}|1", many(600), many(400))]), (false, vec![(600, 400)]));
        assert_eq!(cut(&[format!("{}|{}|1", many(600), many(401))]), (true, vec![(600, 400)]));
        let two = [format!("{}|{}|1", many(900), many(5)), format!("{}||2", many(300))];
        assert_eq!(cut(&two), (true, vec![(750, 0), (250, 0)]));
    }
}
