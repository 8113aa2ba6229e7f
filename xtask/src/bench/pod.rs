//! P16: from the POST of a pod to its Running, the image on the node already.

use anyhow::Result;

use super::host::Host;
use super::row::{Contender, Figure, Row, percentiles};
use super::server::Server;

pub(super) const ROW: Row = Row {
    id: "P16",
    what: "POST of a pod to Running, image local (target: p50 35 ms, p99 120 ms; first target: p50 100 ms)",
    once: false,
    contenders,
};

const PODS: &str = "20";
const IMAGE: &str = "trimtab.local/trimtab:latest";

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    let ours = Server::trimtab(host, "pods", &["up", "--no-quickstart"])?;
    Ok(vec![Contender::new("trimtab up, one node", move || start(&ours))])
}

fn start(server: &Server<'_>) -> Result<Vec<Figure>> {
    let (samples, cost) = server.load("running", || server.drive(&["pods", PODS, IMAGE]))?;
    let times = samples.get("running").map_or(&[][..], Vec::as_slice);
    Ok(percentiles("", times).into_iter().chain(cost).collect())
}
