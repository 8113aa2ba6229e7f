//! Ways to other nodes' pods: a route to a node on one of our links, a VXLAN tunnel to any other.
//!
//! What a tunnel needs to know of a peer follows from the peer's own addresses, so that nothing has to be told: its
//! link-layer address in the tunnel is a hash of its node's address, its address there is the first of its pods' range,
//! and the network's id a hash of all pods' ranges, which the nodes of a cluster agree on and no two clusters on one
//! machine share.

use std::io;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Handle, LinkUnspec, LinkVxlan};

use crate::host::{gateway, system};
use crate::links::{self, Via, kernel, unless};
use crate::{Config, Peer, Result};

/// The UDP port of tunnels (IANA's for VXLAN).
const PORT: u16 = 4789;

/// Makes the ways to peers exactly these.
pub(crate) async fn set(handle: &Handle, config: &Config, peers: &[Peer]) -> Result<()> {
    let metric = links::metric(&config.instance);
    let (mut first, mut far) = (Ok(()), Vec::new());
    for peer in peers {
        match system(format!("find a way to {}", peer.node_ip), links::is_on_link(handle, peer.node_ip).await) {
            Ok(true) => first = first.and(direct(handle, metric, peer).await),
            Ok(false) => far.push(peer),
            Err(error) => first = first.and(Err(error)),
        }
    }
    first = first.and(tunnel(handle, config, &far).await);
    let kept: Vec<IpNet> = peers.iter().flat_map(|peer| peer.pod_cidrs.iter().copied()).collect();
    first.and(system("delete stale routes", links::prune_routes(handle, metric, &kept).await))
}

async fn direct(handle: &Handle, metric: u32, peer: &Peer) -> Result<()> {
    for net in &peer.pod_cidrs {
        let via = Via::Gateway(peer.node_ip);
        system(format!("route {net} via {}", peer.node_ip), links::route(handle, metric, net, via).await)?;
    }
    Ok(())
}

/// The tunnel to these peers: made for the first, gone with the last.
async fn tunnel(handle: &Handle, config: &Config, peers: &[&Peer]) -> Result<()> {
    let name = name(&config.instance);
    if peers.is_empty() {
        return system(format!("delete tunnel {name}"), links::delete(handle, &name).await);
    }
    let index = system(format!("make tunnel {name}"), device(handle, &name, config).await)?;
    let (mut first, mut known) = (Ok(()), Vec::new());
    for peer in peers {
        let far = Far { node: peer.node_ip, mac: links::link_layer_address(&peer.node_ip.to_string()) };
        first = first.and(system(format!("tunnel to {}", far.node), far.forward(handle, index).await));
        known.push(far.forwarding());
        for net in &peer.pod_cidrs {
            let Some(gateway) = gateway(net) else { continue };
            let via = Via::Tunnel { index, gateway };
            let way = async {
                far.neighbour(handle, index, gateway).await?;
                links::route(handle, links::metric(&config.instance), net, via).await
            };
            first = first.and(system(format!("route {net} through the tunnel to {}", far.node), way.await));
            known.push((gateway, far.mac.clone()));
        }
    }
    first.and(system(format!("delete stale entries of {name}"), prune(handle, index, &known).await))
}

fn name(instance: &str) -> String {
    format!("tt{instance}-vx")
}

/// The tunnel's device, up; made anew if it is another cluster's or another node's. Nothing is learned: who is where we
/// know.
async fn device(handle: &Handle, name: &str, config: &Config) -> io::Result<u32> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "this node has no address");
    let own = *config.node_ips.first().ok_or_else(missing)?;
    let id = id(&config.cluster_cidrs);
    let is = |link: &LinkMessage| is_tunnel(link, id, own);
    if find(handle, name).await?.is_some_and(|link| !is(&link)) {
        links::delete(handle, name).await?;
    }
    let link = LinkVxlan::new(name, id).port(PORT).learning(false).address(links::link_layer_address(&own.to_string()));
    let link = match own {
        IpAddr::V4(ip) => link.local(ip),
        IpAddr::V6(ip) => link.local6(ip),
    };
    unless(libc::EEXIST, handle.link().add(link.build()).execute().await)?;
    let index = links::required(handle, name).await?;
    let mtu = underlying_mtu(handle, own).await?.map_or(config.mtu, |mtu| mtu.min(config.mtu));
    let mtu = mtu.saturating_sub(overhead(own));
    handle.link().set(LinkUnspec::new_with_index(index).mtu(mtu).up().build()).execute().await.map_err(kernel)?;
    // What this node sends or translates into the tunnel comes from the address that its pods' range has here.
    for ip in config.pod_cidrs.iter().filter_map(gateway) {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        unless(libc::EEXIST, handle.address().add(index, ip, length).execute().await)?;
    }
    Ok(index)
}

/// Bytes of the outer headers: Ethernet's own of the packet inside, VXLAN, UDP, IP.
fn overhead(outer: IpAddr) -> u32 {
    14 + 8 + 8 + if outer.is_ipv4() { 20 } else { 40 }
}

/// 24 bits, not 0.
fn id(cluster: &[IpNet]) -> u32 {
    let mut names: Vec<String> = cluster.iter().map(|net| net.trunc().to_string()).collect();
    names.sort();
    (links::name_hash(names.join(",").as_bytes()) % 0x00ff_ffff) as u32 + 1
}

async fn find(handle: &Handle, name: &str) -> io::Result<Option<LinkMessage>> {
    match links::index(handle, name).await? {
        Some(index) => handle.link().get().match_index(index).execute().try_next().await.map_err(kernel),
        None => Ok(None),
    }
}

fn is_tunnel(link: &LinkMessage, id: u32, own: IpAddr) -> bool {
    let infos =
        link.attributes.iter().filter_map(|a| if let LinkAttribute::LinkInfo(list) = a { Some(list) } else { None });
    let data =
        infos.flatten().find_map(|i| if let LinkInfo::Data(InfoData::Vxlan(data)) = i { Some(data) } else { None });
    let local = match own {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    };
    data.is_some_and(|data| {
        [InfoVxlan::Id(id), InfoVxlan::Port(PORT), local].iter().all(|wanted| data.contains(wanted))
    })
}

/// The MTU of the link that has an address.
async fn underlying_mtu(handle: &Handle, ip: IpAddr) -> io::Result<Option<u32>> {
    let Some((_, index)) = links::addresses(handle).await?.into_iter().find(|(own, _)| *own == ip) else {
        return Ok(None);
    };
    let link = handle.link().get().match_index(index).execute().try_next().await.map_err(kernel)?;
    let attributes = link.map(|link| link.attributes).unwrap_or_default();
    Ok(attributes.into_iter().find_map(|a| if let LinkAttribute::Mtu(mtu) = a { Some(mtu) } else { None }))
}

/// The other end of a tunnel.
struct Far {
    node: IpAddr,
    mac: Vec<u8>,
}

impl Far {
    /// What goes to its link-layer address goes to its node.
    async fn forward(&self, handle: &Handle, index: u32) -> io::Result<()> {
        let entry = handle.neighbours().add_bridge(index, &self.mac).destination(self.node);
        entry.flags(NeighbourFlags::Own).replace().execute().await.map_err(kernel)
    }

    /// Who its address in the tunnel is.
    async fn neighbour(&self, handle: &Handle, index: u32, gateway: IpAddr) -> io::Result<()> {
        let entry = handle.neighbours().add(index, gateway).link_layer_address(&self.mac);
        entry.replace().execute().await.map_err(kernel)
    }

    fn forwarding(&self) -> (IpAddr, Vec<u8>) {
        (self.node, self.mac.clone())
    }
}

/// Entries of the device that `known` does not have are deleted.
async fn prune(handle: &Handle, index: u32, known: &[(IpAddr, Vec<u8>)]) -> io::Result<()> {
    for family in [AddressFamily::Bridge, AddressFamily::Inet, AddressFamily::Inet6] {
        let entries = handle.neighbours().get().set_address_family(family).execute();
        let entries: Vec<NeighbourMessage> = entries.try_collect().await.map_err(kernel)?;
        let ours =
            |entry: &NeighbourMessage| entry.header.ifindex == index && entry.header.state == NeighbourState::Permanent;
        let here = entries.into_iter().filter(ours);
        for entry in here.filter(|entry| pair(entry).is_some_and(|pair| !known.contains(&pair))) {
            unless(libc::ENOENT, handle.neighbours().del(bare(entry)).execute().await)?;
        }
    }
    Ok(())
}

/// Whom an entry is about, and its link-layer address.
fn pair(entry: &NeighbourMessage) -> Option<(IpAddr, Vec<u8>)> {
    let ip = entry.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        // The destination of a link-layer address is of any family.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?)),
            _ => Some(IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
        },
        _ => None,
    });
    let mac = entry.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.clone()),
        _ => None,
    });
    Some((ip?, mac?))
}

/// What names an entry, alone: deletion refuses the rest.
fn bare(mut entry: NeighbourMessage) -> NeighbourMessage {
    let names = |a: &NeighbourAttribute| {
        matches!(a, NeighbourAttribute::Destination(_) | NeighbourAttribute::LinkLayerAddress(_))
    };
    entry.attributes.retain(names);
    entry
}

#[cfg(test)]
mod tests {
    use super::{id, overhead};

    #[test]
    fn nodes_of_a_cluster_agree_on_the_network() {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
        let own = id(&nets(&["10.244.0.0/16", "fd00::/56"]));
        assert_eq!(own, id(&nets(&["fd00::/56", "10.244.7.0/16"])));
        assert_ne!(own, id(&nets(&["10.245.0.0/16"])));
        assert!((1..1 << 24).contains(&own));
        assert_eq!([overhead("10.0.0.1".parse().unwrap()), overhead("fd00::1".parse().unwrap())], [50, 70]);
    }
}
