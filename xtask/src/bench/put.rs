//! P2: what one durable put of 1 KiB takes, from the bare disk up to a request over TLS.

use std::rc::Rc;

use anyhow::Result;

use super::host::Host;
use super::peer::ETCD;
use super::row::{Contender, Figure, Row, percentiles};
use super::server::Server;

pub(super) const ROW: Row = Row {
    id: "P2",
    what: "one durable put of 1 KiB, one client (target: 1.5 x write and fdatasync)",
    once: false,
    contenders,
};

const PUTS: &str = "500";

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    let ours = Server::ours(host, "put-ours")?;
    let mut all = vec![
        Contender::new("write and fdatasync", || on_disk(host, "raw")),
        Contender::new("trimtab's store, in process", || on_disk(host, "embedded")),
    ];
    let peer = Server::peer(host, "put-peer")?.map(Rc::new);
    let etcd = match &peer {
        Some(peer) => Some(peer.clone()),
        None => Server::etcd(host, "put-etcd")?.map(Rc::new),
    };
    if let Some(etcd) = etcd {
        all.push(Contender::new("etcd, put over gRPC", move || {
            let _alive = &etcd;
            puts(host, "etcd", ETCD)
        }));
    }
    all.push(Contender::new("trimtab, POST of a ConfigMap", move || post(&ours)));
    if let Some(peer) = peer {
        all.push(Contender::new("kube-apiserver and etcd, the same POST", move || post(&peer)));
    }
    Ok(all)
}

fn on_disk(host: &Host, home: &str) -> Result<Vec<Figure>> {
    puts(host, home, &host.fresh("put")?.display().to_string())
}

fn puts(host: &Host, home: &str, at: &str) -> Result<Vec<Figure>> {
    let samples = host.drive("puts", &[home, at, PUTS])?;
    Ok(percentiles("", samples.get("put").map_or(&[], Vec::as_slice)))
}

fn post(server: &Server<'_>) -> Result<Vec<Figure>> {
    let (samples, cost) = server.load("put", || server.drive(&["put", PUTS]))?;
    let times = samples.get("put").map_or(&[][..], Vec::as_slice);
    Ok(percentiles("", times).into_iter().chain(cost).collect())
}
