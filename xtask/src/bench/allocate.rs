//! P5: how many bytes a server allocates for a PATCH, by the size of the object.

use anyhow::{Context, Result};

use super::host::Host;
use super::row::{Contender, Figure, Row, Samples};
use super::server::Server;

pub(super) const ROW: Row = Row {
    id: "P5",
    what: "bytes allocated for a strategic merge PATCH of a small Pod (target: 4 x the object's size; published: 114 x)",
    once: false,
    contenders,
};

const PATCHES: &str = "500";

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    let peer = Server::peer(host, "allocate-peer")?;
    let ours = || figures(&host.drive("allocations", &[PATCHES])?);
    let mut all = vec![Contender::new("trimtab", ours)];
    // Go counts what it allocates.
    let theirs = |peer: &Server<'_>| figures(&peer.drive(&["allocated", PATCHES])?);
    all.extend(peer.map(|peer| Contender::new("kube-apiserver", move || theirs(&peer))));
    Ok(all)
}

fn figures(samples: &Samples) -> Result<Vec<Figure>> {
    let one = |name: &str| samples.get(name).and_then(|s| s.first()).copied().with_context(|| format!("no {name}"));
    let (patch, object) = (one("patch")?, one("object")?);
    Ok(vec![
        Figure::new("KiB/patch", patch / 1024.0),
        Figure::new("object KiB", object / 1024.0),
        Figure::new("ratio", patch / object),
    ])
}
