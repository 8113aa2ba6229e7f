//! P20: from exec to a server that is ready, to the first pod that runs, and to the whole quick start.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::host::Host;
use super::row::{Contender, Figure, Row, Samples};
use super::server::Server;

pub(super) const ROW: Row = Row {
    id: "P20",
    what: "exec to API server ready, first pod running, quick start available, in seconds, from an empty directory \
           (target: 0.1 and 1 s; first target: first pod within 3 s)",
    once: false,
    contenders,
};

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    let mut all = vec![Contender::new("trimtab up", || ours(host))];
    if host.peer("etcd").is_some() && host.peer("kube-apiserver").is_some() {
        all.push(Contender::new("kube-apiserver and etcd", || peer(host)));
    }
    Ok(all)
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as f64)
}

fn seconds(samples: &Samples, what: &str, began: f64) -> Result<f64> {
    let at = samples.get(what).and_then(|times| times.first()).with_context(|| format!("no {what}"))?;
    Ok((at - began) / 1e9)
}

fn ours(host: &Host) -> Result<Vec<Figure>> {
    let began = now()?;
    let mut server = Server::launch(host, "start", &["up"])?;
    let seen = server.drive(&["first-pod"])?;
    server.ready()?;
    let available = (now()? - began) / 1e9;
    Ok(vec![
        Figure::new("API s", seconds(&seen, "ready", began)?),
        Figure::new("first pod s", seconds(&seen, "pod", began)?),
        Figure::new("available s", available),
    ])
}

/// The certificates that are made first (some 50 ms of openssl) are counted with it.
fn peer(host: &Host) -> Result<Vec<Figure>> {
    let began = now()?;
    let _server = Server::peer(host, "start-peer")?.context("no peer")?;
    Ok(vec![Figure::new("API s", (now()? - began) / 1e9)])
}
