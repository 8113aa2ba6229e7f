//! The tower service under a `kube::Client`: one shared HTTP/2 connection, HTTP/1.1 for upgrades, live files.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{AUTHORIZATION, UPGRADE};
use http::{HeaderValue, Request, Uri};
use hyper_util::client::legacy::{Client as Http, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;

use crate::connector::{Connect, Connector};
use crate::files::Watched;
use crate::target::{Credentials, Target};
use crate::{Client, Error, tls};

/// Go's http2 windows: hyper's 64 KiB would stall a watch of large objects.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// A dead connection is noticed after these two (client-go: 30 s and 15 s).
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(15);

/// A client of a server elsewhere.
pub(crate) fn remote(target: Target) -> Result<Client, Error> {
    let namespace = target.namespace.clone();
    let watched = Watched::new(target.files());
    let channels = Channels::of(&target)?;
    let base = target.server.clone();
    Ok(Client::new(Transport { base, channels, live: Some((target, watched)) }, namespace))
}

/// A client of a server in this process.
pub(crate) fn local(connect: Connect) -> Client {
    let requests = http(Connector::Local { connect: connect.clone(), h2: true }, true);
    let upgrades = http(Connector::Local { connect, h2: false }, false);
    let channels = Channels { requests, upgrades, authorization: None };
    Client::new(Transport { base: Uri::from_static("http://localhost"), channels, live: None }, "default")
}

struct Transport {
    base: Uri,
    channels: Channels,
    live: Option<(Target, Watched)>,
}

/// Made anew when a file changes, so that old connections end with their requests.
#[derive(Clone)]
struct Channels {
    requests: Http<Connector, Body>,
    upgrades: Http<Connector, Body>,
    authorization: Option<HeaderValue>,
}

impl Channels {
    fn of(target: &Target) -> Result<Self, Error> {
        let secure = target.server.scheme_str() == Some("https");
        let config = if secure { Some(tls::config(target)?) } else { None };
        let connector = |protocols: &[&[u8]]| Connector::Network {
            tls: config.clone().map(|mut config| {
                config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
                Arc::new(config)
            }),
            server_name: target.tls_server_name.clone(),
        };
        let (requests, upgrades) = (http(connector(tls::H2), false), http(connector(tls::HTTP1), false));
        Ok(Self { requests, upgrades, authorization: authorization(&target.credentials)? })
    }
}

fn authorization(credentials: &Credentials) -> Result<Option<HeaderValue>, Error> {
    let Credentials::Token(token) = credentials else { return Ok(None) };
    let value = HeaderValue::try_from(format!("Bearer {}", token.read()?.trim()));
    let mut value = value.map_err(|_| Error::Pem("the token".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn http(connector: Connector, h2_only: bool) -> Http<Connector, Body> {
    Http::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_only(h2_only)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_WITHIN)
        .build(connector)
}

impl Transport {
    /// Looks whether files changed. A half-written pair is tried again with the next request.
    fn refresh(&mut self) {
        let Some((target, watched)) = &mut self.live else { return };
        if !watched.changed() {
            return;
        }
        match Channels::of(target) {
            Ok(channels) => self.channels = channels,
            Err(error) => {
                tracing::warn!(%error, "the new credentials cannot be read, the old ones stay");
                watched.again();
            }
        }
    }
}

impl tower::Service<Request<Body>> for Transport {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper_util::client::legacy::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        self.refresh();
        *request.uri_mut() = absolute(&self.base, request.uri());
        let headers = request.headers_mut();
        if let Some(token) = &self.channels.authorization
            && !headers.contains_key(AUTHORIZATION)
        {
            headers.insert(AUTHORIZATION, token.clone());
        }
        let upgrade = headers.contains_key(UPGRADE);
        let http = if upgrade { &self.channels.upgrades } else { &self.channels.requests };
        http.request(request)
    }
}

/// The server's scheme, authority and path before the request's path and query.
fn absolute(base: &Uri, uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut parts = base.clone().into_parts();
    parts.path_and_query = format!("{}{path}", base.path().trim_end_matches('/')).parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn a_path_of_the_server_stays_before_the_request() {
        for (base, want) in [("https://a:1", "https://a:1/api?x=1"), ("https://a/k/c/", "https://a/k/c/api?x=1")] {
            assert_eq!(absolute(&base.parse().unwrap(), &"/api?x=1".parse().unwrap()).to_string(), want);
        }
    }
}
