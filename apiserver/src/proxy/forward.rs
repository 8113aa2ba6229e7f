//! Sends a request on over HTTP/1.1 and hands the answer back; splices upgraded connections.

use std::io;
use std::sync::Arc;

use api::{Status, StatusResult};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::dial::Io;
use super::locate::{Peer, Place, Way};
use super::{Ways, tls};
use crate::parts::{Body, full};

/// What concerns one connection only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: &[HeaderName] = &[
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];
/// A node's error text longer than this is cut.
const MAX_ERROR: usize = 64 * 1024;

/// Sends it there.
pub(super) async fn forward(
    ways: &Ways,
    way: Way,
    place: &Place,
    mut request: Request<Incoming>,
) -> StatusResult<Response<Body>> {
    let upgrade = is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let answered = send(ways, place, request, upgrade.is_some()).await;
    let answer = answered.map_err(|error| unreachable(way, place, &error))?;
    match (upgrade, way) {
        (Some(upgrade), _) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => Ok(splice(upgrade, answer)),
        (_, Way::Log) if !answer.status().is_success() => Err(told(answer).await),
        _ => Ok(plain(answer)),
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

async fn send(ways: &Ways, place: &Place, request: Request<Incoming>, upgrade: bool) -> io::Result<Response<Incoming>> {
    let io = connect(ways, place).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    sender.send_request(rewrite(place, request, upgrade)?).await.map_err(io::Error::other)
}

async fn connect(ways: &Ways, place: &Place) -> io::Result<Box<dyn Io>> {
    let tcp = ways.dial.dial(&place.host, place.port).await?;
    let config = match place.peer {
        Peer::Plain => return Ok(tcp),
        Peer::Node => ways.tls.config(),
        Peer::Tls => tls::anybody(),
    };
    let name = ServerName::try_from(place.host.clone()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config.map_err(io::Error::other)?));
    Ok(Box::new(connector.connect(name, tcp).await?))
}

/// The request as the other end gets it: without the user's credentials, which are for us.
fn rewrite(place: &Place, request: Request<Incoming>, upgrade: bool) -> io::Result<Request<Incoming>> {
    let (mut parts, body) = request.into_parts();
    let forwarded_uri = HeaderValue::try_from(parts.uri.path()).ok();
    parts.uri = place.path.parse::<Uri>().map_err(io::Error::other)?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let headers = &mut parts.headers;
    let kept = if upgrade { headers.get(header::UPGRADE).cloned() } else { None };
    strip(headers);
    if let Some(upgrade) = kept {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    headers.remove(header::AUTHORIZATION);
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    let host = if place.host.contains(':') { format!("[{}]", place.host) } else { place.host.clone() };
    let host = HeaderValue::try_from(format!("{host}:{}", place.port)).map_err(io::Error::other)?;
    if place.peer != Peer::Node
        && let Some(uri) = forwarded_uri
    {
        headers.insert("x-forwarded-uri", uri);
    }
    headers.insert(header::HOST, host);
    Ok(Request::from_parts(parts, body))
}

fn strip(headers: &mut HeaderMap) {
    // Connection names further headers that end here.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

fn plain(answer: Response<Incoming>) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    strip(&mut parts.headers);
    parts.version = Version::default();
    parts.extensions.clear();
    Response::from_parts(parts, body.map_err(io::Error::other).boxed_unsync())
}

/// Joins the two connections once both are upgraded; ends both when either ends.
fn splice(client: OnUpgrade, mut answer: Response<Incoming>) -> Response<Body> {
    let server = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (Ok(client), Ok(server)) = (client.await, server.await) else { return };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
            tracing::debug!(%error, "a spliced connection ended");
        }
    });
    let (mut parts, _) = answer.into_parts();
    parts.extensions.clear();
    Response::from_parts(parts, full(""))
}

/// A failure to reach the place, in the words of the way.
fn unreachable(way: Way, place: &Place, error: &io::Error) -> Box<Status> {
    let Place { host, port, path, .. } = place;
    match way {
        Way::Log => Status::failure(500, "", format!("Get \"https://{host}:{port}{path}\": {error}")),
        Way::Exec | Way::Attach | Way::PortForward => {
            Status::failure(500, "InternalError", format!("error dialing backend: {error}"))
        }
        Way::Pod | Way::Service | Way::Node => {
            Status::failure(503, "ServiceUnavailable", format!("error trying to reach service: {error}"))
        }
    }
}

/// A node's refusal as a Status.
async fn told(answer: Response<Incoming>) -> Box<Status> {
    let code = answer.status().as_u16();
    let text = Limited::new(answer.into_body(), MAX_ERROR).collect().await.map(|body| body.to_bytes());
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).trim().to_owned();
    match code {
        400 => Status::bad_request(text),
        404 => Status::failure(404, "NotFound", text),
        500 => Status::internal(text),
        code => Status::failure(code, "", text),
    }
}
