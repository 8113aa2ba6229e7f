//! The kubelet's HTTPS endpoints: logs, exec, attach, port-forward, and what the node knows of itself.

mod auth;
mod follow;
mod local;
mod remote;
mod report;
mod tls;

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::agent::Agent;
use crate::chain;

/// Connections at the same time.
const CONNECTIONS: usize = 1024;
/// Seconds for a TLS handshake.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(10);
/// Wait before the socket or the certificate is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// A response's body.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// Serves until the task is dropped.
pub(crate) async fn run(agent: Arc<Agent>) {
    let tls = tls::config(&agent);
    let (tls, renew) = match tls.await {
        Ok(found) => found,
        Err(error) => return tracing::error!(error = chain(&error), "no HTTPS endpoints: no certificate"),
    };
    let listener = loop {
        match TcpListener::bind(agent.config.listen).await {
            Ok(listener) => break listener,
            Err(error) => tracing::warn!(%error, at = %agent.config.listen, "the HTTPS endpoints cannot listen"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let serve = accept(agent, listener, TlsAcceptor::from(tls));
    tokio::join!(serve, renew);
}

async fn accept(agent: Arc<Agent>, listener: TcpListener, tls: TlsAcceptor) {
    let gate = Arc::new(Semaphore::new(CONNECTIONS));
    let judge = Arc::new(auth::Judge::new(agent.client.clone(), &agent.config));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = gate.clone().acquire_owned().await else { return };
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (agent, tls, judge) = (agent.clone(), tls.clone(), judge.clone());
                connections.spawn(async move {
                    if let Err(error) = serve(agent, stream, tls, judge).await {
                        tracing::debug!(error, "a connection of the HTTPS endpoints");
                    }
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(agent: Arc<Agent>, stream: TcpStream, tls: TlsAcceptor, judge: Arc<auth::Judge>) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await.map_err(|_| "handshake timed out")?;
    let stream = stream.map_err(|error| error.to_string())?;
    let peer = auth::peer(stream.get_ref().1.peer_certificates());
    let service = service_fn(move |request| {
        let (agent, judge, peer) = (agent.clone(), judge.clone(), peer.clone());
        async move { Ok::<_, Infallible>(answer(agent, &judge, peer.as_ref(), request).await) }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.serve_connection_with_upgrades(TokioIo::new(stream), service).await.map_err(|error| error.to_string())
}

/// A response of plain text.
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed());
    *response.status_mut() = code;
    response
}

async fn answer(
    agent: Arc<Agent>,
    judge: &auth::Judge,
    peer: Option<&auth::User>,
    request: Request<Incoming>,
) -> Response<Body> {
    match judge.allows(peer, &request).await {
        Ok(()) => route(agent, request).await,
        Err(refusal) => refusal,
    }
}

async fn route(agent: Arc<Agent>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz"]) => text(StatusCode::OK, "ok"),
        (&Method::GET, ["pods"]) => report::pods(&agent),
        (&Method::GET, ["stats", "summary"]) => report::summary(&agent).await,
        (&Method::GET, ["metrics"]) => report::metrics(&agent),
        (&Method::GET, ["containerLogs", namespace, pod, container]) => {
            follow::logs(&agent, namespace, pod, container, request.uri().query().unwrap_or_default()).await
        }
        (&Method::GET | &Method::POST, ["exec", namespace, pod, .., container]) => {
            remote::command(&agent, namespace, pod, container, request, remote::What::Exec).await
        }
        (&Method::GET | &Method::POST, ["attach", namespace, pod, .., container]) => {
            remote::command(&agent, namespace, pod, container, request, remote::What::Attach).await
        }
        (&Method::GET | &Method::POST, ["portForward", namespace, pod] | ["portForward", namespace, pod, _]) => {
            local::forward(&agent, namespace, pod, request).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// The pod of that name, as last seen.
pub(crate) fn find(agent: &Agent, namespace: &str, name: &str) -> Option<Arc<Pod>> {
    let is = |text: &Option<String>, wanted: &str| text.as_deref() == Some(wanted);
    let pods = agent.pods.borrow();
    let mut list: Vec<&Arc<Pod>> =
        pods.values().filter(|p| is(&p.metadata.namespace, namespace) && is(&p.metadata.name, name)).collect();
    // Of two with one name, the one that is not being deleted.
    list.sort_by_key(|p| p.metadata.deletion_timestamp.is_some());
    list.first().map(|p| Arc::clone(p))
}

/// Query parameters, decoded.
pub(crate) fn query(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                std::str::from_utf8(&hex).ok().and_then(|h| u8::from_str_radix(h, 16).ok()).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
