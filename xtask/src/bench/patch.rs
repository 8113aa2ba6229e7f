//! P4: how many times a second small Pods are patched, and what a PATCH costs the server.

use anyhow::{Context, Result};

use super::host::Host;
use super::row::{Contender, Figure, Row, percentiles};
use super::server::Server;

pub(super) const ROW: Row = Row {
    id: "P4",
    what: "strategic merge PATCH of a small Pod each by 32 clients (target: 20 x the peer's rate)",
    once: false,
    contenders,
};

const CLIENTS: &str = "32";
const PATCHES: &str = "25";

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    let ours = Server::ours(host, "patch-ours")?;
    let peer = Server::peer(host, "patch-peer")?;
    let mut all = vec![Contender::new("trimtab", move || patch(&ours))];
    all.extend(peer.map(|peer| Contender::new("kube-apiserver and etcd", move || patch(&peer))));
    Ok(all)
}

fn patch(server: &Server<'_>) -> Result<Vec<Figure>> {
    let (samples, cost) = server.load("patch", || server.drive(&["patch", CLIENTS, PATCHES]))?;
    let times = samples.get("patch").context("no patches")?;
    let seconds = samples.get("all").and_then(|all| all.first()).context("no duration")? / 1e9;
    let rate = Figure::new("patches/s", times.len() as f64 / seconds);
    Ok(std::iter::once(rate).chain(percentiles("", times)).chain(cost).collect())
}
