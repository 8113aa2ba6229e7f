//! Links, addresses and routes over rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// Marks the routes that are ours: a number that `/etc/iproute2/rt_protos` leaves free.
const ROUTES_OF_OURS: RouteProtocol = RouteProtocol::Other(84);

/// A connection to the kernel's routing tables in the calling thread's network namespace. Must be called in a tokio
/// runtime.
pub(crate) fn connect() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

pub(crate) fn kernel(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

pub(crate) fn unless(kind: i32, result: Result<(), rtnetlink::Error>) -> io::Result<()> {
    match result.map_err(kernel) {
        Err(error) if error.raw_os_error() == Some(kind) => Ok(()),
        other => other,
    }
}

/// A link's index.
pub(crate) async fn index(handle: &Handle, name: &str) -> io::Result<Option<u32>> {
    match handle.link().get().match_name(name).execute().try_next().await.map_err(kernel) {
        Ok(link) => Ok(link.map(|l| l.header.index)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) async fn required(handle: &Handle, name: &str) -> io::Result<u32> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("link {name} is gone"));
    index(handle, name).await?.ok_or_else(missing)
}

/// A bridge that is up and has these addresses. Its link-layer address is its own from the start: else it would take
/// the lowest of its ports' and change under the pods that have learned it.
pub(crate) async fn bridge(handle: &Handle, name: &str, mtu: u32, addresses: &[IpNet]) -> io::Result<u32> {
    let link = LinkBridge::new(name).mtu(mtu).address(link_layer_address(name));
    unless(libc::EEXIST, handle.link().add(link.build()).execute().await)?;
    let index = required(handle, name).await?;
    up(handle, index).await?;
    for net in addresses {
        unless(libc::EEXIST, handle.address().add(index, net.addr(), net.prefix_len()).execute().await)?;
    }
    Ok(index)
}

/// A locally administered unicast address from a name (its hash).
pub(crate) fn link_layer_address(name: &str) -> Vec<u8> {
    let [a, b, c, d, e, ..] = name_hash(name.as_bytes()).to_be_bytes();
    vec![0x02, a, b, c, d, e]
}

/// FNV-1a, for names that must be the same after a restart.
pub fn name_hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Brings a link up.
pub(crate) async fn up(handle: &Handle, index: u32) -> io::Result<()> {
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.map_err(kernel)
}

/// A pair of links: `name` here on the bridge and up, `eth0` in the other namespace.
pub(crate) async fn veth(
    handle: &Handle,
    name: &str,
    bridge: u32,
    mtu: u32,
    peer_namespace: BorrowedFd<'_>,
) -> io::Result<()> {
    let peer =
        LinkMessageBuilder::<LinkUnspec>::new().name("eth0").mtu(mtu).setns_by_fd(peer_namespace.as_raw_fd()).build();
    let link = LinkVeth::new(name, "eth0").set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    handle.link().add(link.mtu(mtu).controller(bridge).up().build()).execute().await.map_err(kernel)?;
    // With br_netfilter, a pod that reaches itself through a service leaves by the port it came in by.
    let port = LinkBridgePort::new(required(handle, name).await?).hairpin(true).build();
    handle.link().set_port(port).execute().await.map_err(kernel)
}

/// What a pod sees: loopback and `eth0`, its addresses alone (other pods are reached through the gateway, so that all
/// traffic passes the node's rules), and default routes.
pub(crate) async fn inside(handle: &Handle, addresses: &[IpAddr], gateways: &[IpAddr]) -> io::Result<()> {
    up(handle, required(handle, "lo").await?).await?;
    let eth0 = required(handle, "eth0").await?;
    for ip in addresses {
        let request = handle.address().add(eth0, *ip, if ip.is_ipv4() { 32 } else { 128 });
        request.execute().await.map_err(kernel)?;
    }
    up(handle, eth0).await?;
    for gateway in gateways {
        let any: IpAddr = if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(any, 0).map_err(io::Error::other)?;
        let route = route.gateway(*gateway).map_err(io::Error::other)?.output_interface(eth0).onlink().build();
        handle.route().add(route).execute().await.map_err(kernel)?;
    }
    Ok(())
}

/// Deletes a link. Idempotent.
pub(crate) async fn delete(handle: &Handle, name: &str) -> io::Result<()> {
    match index(handle, name).await? {
        Some(index) => unless(libc::ENODEV, handle.link().del(index).execute().await),
        None => Ok(()),
    }
}

/// The names of all links that begin with a prefix.
pub(crate) async fn names(handle: &Handle, prefix: &str) -> io::Result<Vec<String>> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await.map_err(kernel)?;
    let name = |link: LinkMessage| {
        link.attributes.into_iter().find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name) } else { None })
    };
    Ok(links.into_iter().filter_map(name).filter(|name| name.starts_with(prefix)).collect())
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// To a neighbour.
    Gateway(IpAddr),
    /// To whoever has the address on a link.
    Link(u32),
    /// Into a tunnel, to what is `gateway` there.
    Tunnel { index: u32, gateway: IpAddr },
}

/// A number for an instance's routes (their metric): several instances have routes on one machine.
pub(crate) fn metric(instance: &str) -> u32 {
    0x7400_0000 | (name_hash(instance.as_bytes()) & 0x00ff_ffff) as u32
}

/// Adds or replaces a route of ours.
pub(crate) async fn route(handle: &Handle, metric: u32, to: &IpNet, via: Via) -> io::Result<()> {
    let builder = RouteMessageBuilder::<IpAddr>::new().protocol(ROUTES_OF_OURS).priority(metric);
    let builder = builder.destination_prefix(to.network(), to.prefix_len()).map_err(io::Error::other)?;
    let message = match via {
        Via::Gateway(ip) => builder.gateway(ip).map_err(io::Error::other)?.build(),
        Via::Link(index) => builder.output_interface(index).build(),
        Via::Tunnel { index, gateway } => {
            builder.gateway(gateway).map_err(io::Error::other)?.output_interface(index).onlink().build()
        }
    };
    handle.route().add(message).replace().execute().await.map_err(kernel)
}

/// Our routes through gateways, whose targets `keep` does not name, are deleted.
pub(crate) async fn prune_routes(handle: &Handle, metric: u32, keep: &[IpNet]) -> io::Result<()> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        let routes: Vec<RouteMessage> = handle.route().get(filter).execute().try_collect().await.map_err(kernel)?;
        for route in routes.into_iter().filter(|route| is_stale(route, metric, keep)) {
            unless(libc::ESRCH, handle.route().del(route).execute().await)?;
        }
    }
    Ok(())
}

fn is_stale(route: &RouteMessage, metric: u32, keep: &[IpNet]) -> bool {
    let ours = route.header.protocol == ROUTES_OF_OURS && route.attributes.contains(&RouteAttribute::Priority(metric));
    ours && has_gateway(route) && destination(route).is_some_and(|net| !keep.contains(&net))
}

fn has_gateway(route: &RouteMessage) -> bool {
    let far = |a: &RouteAttribute| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    route.attributes.iter().any(far)
}

/// Whether packets to an address need no gateway.
pub(crate) async fn is_on_link(handle: &Handle, ip: IpAddr) -> io::Result<bool> {
    let length = if ip.is_ipv4() { 32 } else { 128 };
    let question = RouteMessageBuilder::<IpAddr>::new().destination_prefix(ip, length).map_err(io::Error::other)?;
    let answer = handle.route().get(question.build()).execute().try_next().await.map_err(kernel)?;
    Ok(answer.is_some_and(|route| !has_gateway(&route)))
}

/// The addresses of all links, each with its link.
pub(crate) async fn addresses(handle: &Handle) -> io::Result<Vec<(IpAddr, u32)>> {
    let all: Vec<AddressMessage> = handle.address().get().execute().try_collect().await.map_err(kernel)?;
    let local = |message: &AddressMessage| {
        let of = |wanted_local| {
            message.attributes.iter().find_map(move |attribute| match attribute {
                AddressAttribute::Local(ip) if wanted_local => Some(*ip),
                AddressAttribute::Address(ip) if !wanted_local => Some(*ip),
                _ => None,
            })
        };
        of(true).or_else(|| of(false))
    };
    Ok(all.iter().filter_map(|message| Some((local(message)?, message.header.index))).collect())
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}
