//! The cluster's DNS as a part of its own: a role of the program, run as a pod.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use network::dns::{Data, Records, Zones};
use node_plan::dns;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::watch::Cache;
use crate::{Error, Result};

/// Seconds for which answers may be kept.
const TTL_SECONDS: u32 = 5;

/// The settings of the cluster's DNS.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Where it answers, UDP and TCP.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/readyz` answer.
    pub health: Option<SocketAddr>,
    /// `cluster.local`.
    pub domain: String,
    /// Where other names are asked for; empty: the name servers of `/etc/resolv.conf`.
    pub upstreams: Vec<IpAddr>,
}

/// Answers for the cluster's names from what services and their slices say, until `shutdown` ends.
pub async fn run_dns(client: Client, config: DnsConfig, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
    let failed = |what: &str| {
        let what = format!("{what} {}", config.listen);
        move |error| Error::Io(what, error)
    };
    let udp = UdpSocket::bind(config.listen).await.map_err(failed("listen on UDP"))?;
    let tcp = TcpListener::bind(config.listen).await.map_err(failed("listen on TCP"))?;
    let mut tasks = JoinSet::new();
    let services = Cache::<Service>::start(Api::all(client.clone()), &mut tasks);
    let slices = Cache::<EndpointSlice>::start(Api::all(client), &mut tasks);
    let (zones, ready) = (Zones::default(), Arc::new(AtomicBool::new(false)));
    if let Some(at) = config.health {
        let listener = TcpListener::bind(at).await.map_err(|error| Error::Io(format!("listen on {at}"), error))?;
        tasks.spawn(health(listener, ready.clone()));
    }
    tasks.spawn(feed(services, slices, config.domain.clone(), zones.clone(), ready));
    let upstreams = if config.upstreams.is_empty() { of_host() } else { config.upstreams.clone() };
    network::dns::serve(zones, udp, tcp, &upstreams, shutdown).await.map_err(failed("answer on"))
}

/// The name servers of the file that the pod was given.
fn of_host() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text.lines().filter_map(|l| l.strip_prefix("nameserver ")).filter_map(|ip| ip.trim().parse().ok()).collect()
}

async fn feed(
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    domain: String,
    zones: Zones,
    ready: Arc<AtomicBool>,
) {
    services.synced().await;
    slices.synced().await;
    let (mut first, mut second) = (services.changes(), slices.changes());
    loop {
        first.mark_unchanged();
        second.mark_unchanged();
        let list: Vec<Service> = services.all().iter().map(|s| (**s).clone()).collect();
        let parts: Vec<EndpointSlice> = slices.all().iter().map(|s| (**s).clone()).collect();
        zones.replace(records(&list, &parts, &domain));
        ready.store(true, Ordering::Release);
        let changed = tokio::select! { c = first.changed() => c, c = second.changed() => c };
        if changed.is_err() {
            return;
        }
    }
}

fn records(services: &[Service], slices: &[EndpointSlice], domain: &str) -> Records {
    let data = |data: dns::Data| match data {
        dns::Data::Address(ip) => Data::Address(ip),
        dns::Data::Service { port, target } => Data::Service { port, target },
        dns::Data::Alias(name) => Data::Alias(name),
        dns::Data::Pointer(name) => Data::Pointer(name),
    };
    let names = dns::records(services, slices, domain);
    let names = names.into_iter().map(|(name, list)| (name, list.into_iter().map(data).collect())).collect();
    Records { zones: vec![domain.to_ascii_lowercase()], names, ttl_seconds: TTL_SECONDS }
}

/// `/healthz` always, `/readyz` once the first lists are in.
async fn health(listener: TcpListener, ready: Arc<AtomicBool>) {
    while let Ok((stream, _)) = listener.accept().await {
        let ready = ready.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let fine = request.uri().path() != "/readyz" || ready.load(Ordering::Acquire);
                let (code, text) = if fine { (200, "ok") } else { (503, "not ready") };
                let mut response = http::Response::new(Full::new(Bytes::from_static(text.as_bytes())));
                *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
