//! Which protocol a request asks for, and the response that agrees to it.

use std::future::Future;
use std::pin::Pin;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::command::{RemoteCommand, Wants};
use crate::forward::PortForward;
use crate::tunnel::Tunnel;
use crate::{Error, forward, spdy, websocket};

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The agreement: send `response` (status 101, no body), and await `session` meanwhile.
pub struct Upgrade<T> {
    /// The head of the response.
    pub response: Response<()>,
    /// Ends when the connection is upgraded and, with SPDY, the client has opened its streams.
    pub session: Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>,
}

/// Why a request is not upgraded; goes out as plain text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[allow(missing_docs)]
pub struct Refused {
    pub status: StatusCode,
    pub message: String,
}

/// Agrees to exec or attach.
pub fn remote_command<B>(request: &mut Request<B>, wants: Wants) -> Result<Upgrade<RemoteCommand>, Refused> {
    if !wants.any() {
        return Err(refuse(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr"));
    }
    match carrier(request.headers())? {
        Carrier::WebSocket => {
            let protocol = choose(request.headers(), &SEC_WEBSOCKET_PROTOCOL, &[V5, V4])?;
            let response = websocket_response(request.headers(), protocol)?;
            let upgrade = hyper::upgrade::on(request);
            let session = async move { Ok(websocket::remote_command(socket(upgrade).await?, wants, protocol == V5)) };
            Ok(Upgrade { response, session: Box::pin(session) })
        }
        Carrier::Spdy => {
            let response = spdy_response(choose(request.headers(), &STREAM_PROTOCOL, &[V5, V4])?);
            let upgrade = hyper::upgrade::on(request);
            let session = async move { spdy::command::open(TokioIo::new(upgrade.await?), wants).await };
            Ok(Upgrade { response, session: Box::pin(session) })
        }
    }
}

/// Agrees to port-forward.
pub fn port_forward<B>(request: &mut Request<B>) -> Result<Upgrade<PortForward>, Refused> {
    match carrier(request.headers())? {
        Carrier::WebSocket => {
            let protocol = choose(request.headers(), &SEC_WEBSOCKET_PROTOCOL, &[TUNNEL])?;
            let response = websocket_response(request.headers(), protocol)?;
            let upgrade = hyper::upgrade::on(request);
            let session = async move { Ok(forward::open(Tunnel::new(socket(upgrade).await?))) };
            Ok(Upgrade { response, session: Box::pin(session) })
        }
        Carrier::Spdy => {
            let response = spdy_response(choose(request.headers(), &STREAM_PROTOCOL, &[PORT_FORWARD])?);
            let upgrade = hyper::upgrade::on(request);
            let session = async move { Ok(forward::open(TokioIo::new(upgrade.await?))) };
            Ok(Upgrade { response, session: Box::pin(session) })
        }
    }
}

enum Carrier {
    WebSocket,
    Spdy,
}

fn carrier(headers: &HeaderMap) -> Result<Carrier, Refused> {
    let upgrades = words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
    let to = |protocol: &str| upgrades && words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case(protocol));
    if to("websocket") {
        return Ok(Carrier::WebSocket);
    }
    if to(SPDY) {
        return Ok(Carrier::Spdy);
    }
    Err(refuse(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request"))
}

/// The comma-separated words of a header that may stand several times.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}

/// The first of the client's protocols that we speak.
fn choose(headers: &HeaderMap, name: &HeaderName, ours: &[&'static str]) -> Result<&'static str, Refused> {
    let chosen = words(headers, name).find_map(|word| ours.iter().find(|our| **our == word));
    chosen.copied().ok_or_else(|| {
        let theirs: Vec<&str> = words(headers, name).collect();
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            theirs.join(" "),
            ours.join(" ")
        );
        refuse(StatusCode::FORBIDDEN, &message)
    })
}

fn refuse(status: StatusCode, message: &str) -> Refused {
    Refused { status, message: message.into() }
}

fn websocket_response(headers: &HeaderMap, protocol: &'static str) -> Result<Response<()>, Refused> {
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = key.and_then(|key| HeaderValue::try_from(key).ok());
    let accept = accept.ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "there is no Sec-WebSocket-Key"))?;
    let mut response = switching("websocket");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(response)
}

fn spdy_response(protocol: &'static str) -> Response<()> {
    let mut response = switching(SPDY);
    response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    // What client-go before 1.5 looked for.
    response.headers_mut().insert(ACCEPTED, HeaderValue::from_static(protocol));
    response
}

fn switching(to: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

async fn socket(upgrade: OnUpgrade) -> Result<WebSocketStream<TokioIo<Upgraded>>, Error> {
    let io = TokioIo::new(upgrade.await?);
    Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(websocket::config())).await)
}

#[cfg(test)]
mod tests {
    use super::{Wants, port_forward, remote_command};
    use http::Request;

    fn outcome(upgrade: &str, header: &str, protocols: &str, forward: bool) -> String {
        let request = Request::get("/").header("Connection", "keep-alive, Upgrade").header("Upgrade", upgrade);
        let mut request = request.header("Sec-WebSocket-Key", "x").header(header, protocols).body(()).unwrap();
        let wants = Wants { stdout: true, ..Wants::default() };
        let response = match forward {
            true => port_forward(&mut request).map(|u| u.response),
            false => remote_command(&mut request, wants).map(|u| u.response),
        };
        let said = |r: http::Response<()>| {
            let headers = ["sec-websocket-protocol", "x-stream-protocol-version"];
            headers.iter().find_map(|h| r.headers().get(*h)).unwrap().to_str().unwrap().to_owned()
        };
        response.map(said).unwrap_or_else(|refused| refused.status.as_str().to_owned())
    }

    #[test]
    fn the_client_s_order_decides() {
        let (ws, spdy) = ("Sec-WebSocket-Protocol", "X-Stream-Protocol-Version");
        for (upgrade, header, protocols, forward, want) in [
            ("websocket", ws, "v5.channel.k8s.io, v4.channel.k8s.io", false, "v5.channel.k8s.io"),
            ("WebSocket", ws, "v4.channel.k8s.io", false, "v4.channel.k8s.io"),
            ("websocket", ws, "channel.k8s.io", false, "403"),
            ("SPDY/3.1", spdy, "v4.channel.k8s.io,channel.k8s.io", false, "v4.channel.k8s.io"),
            ("SPDY/3.1", spdy, "portforward.k8s.io", true, "portforward.k8s.io"),
            ("websocket", ws, "SPDY/3.1+portforward.k8s.io", true, "SPDY/3.1+portforward.k8s.io"),
            ("h2c", ws, "v5.channel.k8s.io", false, "400"),
        ] {
            assert_eq!(outcome(upgrade, header, protocols, forward), want, "{upgrade} {protocols}");
        }
    }
}
