//! P7: a LIST over many objects whose selector matches none.

use anyhow::Result;

use super::host::Host;
use super::row::{Contender, Figure, Row, percentiles};
use super::server::Server;

pub(super) const ROW: Row = Row {
    id: "P7",
    what: "LIST over 20,000 ConfigMaps of 1 KiB, selector matches none (target: 50 x faster than the peer)",
    once: false,
    contenders,
};

const OBJECTS: &str = "20000";
const LISTS: &str = "40";

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    let ours = Server::ours(host, "list-ours")?;
    let peer = Server::peer(host, "list-peer")?;
    for server in peer.iter().chain([&ours]) {
        server.drive(&["fill", OBJECTS])?;
    }
    let mut all = vec![Contender::new("trimtab", move || list(&ours))];
    all.extend(peer.map(|peer| Contender::new("kube-apiserver and etcd", move || list(&peer))));
    Ok(all)
}

fn list(server: &Server<'_>) -> Result<Vec<Figure>> {
    let (samples, cost) = server.load("list", || server.drive(&["list", LISTS]))?;
    let times = samples.get("list").map_or(&[][..], Vec::as_slice);
    Ok(percentiles("", times).into_iter().chain(cost).collect())
}
