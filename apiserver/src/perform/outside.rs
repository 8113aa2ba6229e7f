//! Calls to webhooks, of admission and of conversion: over HTTPS, with connections that are kept, within the time that is
//! left.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::ObjectName;
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::trust;
use crate::conversion::{self, Converted, Question};
use crate::core::Core;
use crate::hooks::{Call, Place, Reply, Target};
use crate::proxy::{self, Dial};

/// An answer may be so long, in bytes: an object and its patch in base64.
const MAX_ANSWER: usize = 16 << 20;
/// A conversion webhook has so much time.
const CONVERSION: Duration = Duration::from_secs(30);
/// Connections that are kept while nothing is to be said, in all and for how long.
const MAX_IDLE: usize = 256;
const IDLE_FOR: Duration = Duration::from_secs(90);

/// The way to webhooks.
pub(crate) struct Outside {
    dial: Arc<dyn Dial>,
    idle: Mutex<HashMap<Line, Vec<(Sender, Instant)>>>,
    /// Spreads calls over the endpoints of a service.
    turn: AtomicU64,
}

type Sender = SendRequest<Full<Bytes>>;

/// What two calls must have in common to share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Line {
    host: String,
    port: u16,
    /// The name in the certificate.
    name: String,
    ca_bundle: Vec<u8>,
}

impl Outside {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, idle: Mutex::default(), turn: AtomicU64::new(0) }
    }

    /// Asks all at once; the replies are in their order. When the request's own `deadline` passes, the caller gives up:
    /// that is no failure of the webhook.
    pub(crate) async fn ask(&self, core: &Core, calls: &[Call], deadline: Instant) -> Vec<Reply> {
        join_all(calls.iter().map(|call| self.ask_one(core, call, deadline))).await
    }

    async fn ask_one(&self, core: &Core, call: &Call, deadline: Instant) -> Reply {
        let uid = core.entropy().uuid();
        let mut review = call.review.clone();
        if let Some(request) = review.get_mut("request").and_then(Value::as_object_mut) {
            request.insert("uid".into(), uid.as_str().into());
        }
        let limit = Duration::from_secs(call.hook.timeout_seconds);
        let left = deadline.saturating_duration_since(Instant::now());
        let review = self.said(core, &call.hook.target, &review, limit, limit.min(left)).await;
        if let Err(why) = &review {
            tracing::warn!(webhook = call.hook.name, configuration = call.hook.configuration, why, "a webhook failed");
        }
        Reply { uid, review }
    }

    /// Lets a webhook convert objects.
    pub(crate) async fn convert(&self, core: &Core, question: &Question) -> Converted {
        let uid = core.entropy().uuid();
        let answered = match conversion::review(question, &uid) {
            Ok(review) => self.said(core, &question.converter.target, &review, CONVERSION, CONVERSION).await,
            Err(why) => return Err(why),
        };
        let converted = conversion::read(question, &uid, answered);
        if let Err(why) = &converted {
            tracing::warn!(definition = question.converter.definition, why, "a conversion webhook failed");
        }
        converted
    }

    /// What a webhook says to a review within `limit`; it is told that it has `told`.
    async fn said(
        &self,
        core: &Core,
        target: &Target,
        review: &Value,
        limit: Duration,
        told: Duration,
    ) -> Result<Value, String> {
        let url = address(target, told)?;
        let said = tokio::time::timeout(limit, self.post(core, target, &url, review.to_string().into())).await;
        let bytes = said.unwrap_or_else(|_| Err(format!("Post {url:?}: context deadline exceeded")))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))
    }

    /// The body of a successful answer; the error is what Go's client would say.
    async fn post(&self, core: &Core, target: &Target, url: &str, body: Bytes) -> Result<Bytes, String> {
        let failed = |error: io::Error| format!("Post {url:?}: {}", go_text(&error));
        let uri: Uri = url.parse().map_err(|error| format!("parse {url:?}: {error}"))?;
        let line = self.line(core, target, &uri).map_err(|why| format!("Post {url:?}: {why}"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, uri.authority().map_or("", |a| a.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(body))
            .map_err(|error| format!("Post {url:?}: {error}"))?;
        let (answer, sender) = self.send(&line, request).await.map_err(failed)?;
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let bytes = bytes.map_err(|error| format!("Post {url:?}: {error}"))?.to_bytes();
        self.keep(line, sender);
        match status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => Ok(bytes),
            other => Err(refused(other, &String::from_utf8_lossy(&bytes))),
        }
    }

    /// Where to connect to, by the endpoints of a service or the host of a URL.
    fn line(&self, core: &Core, target: &Target, uri: &Uri) -> Result<Line, String> {
        let name = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let (host, port) = match &target.place {
            Place::Service { namespace, name, port, .. } => {
                let service = ObjectName { namespace: namespace.clone(), name: name.clone() };
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                proxy::endpoint(core, &service, *port, turn)?
            }
            _ => (name.clone(), uri.port_u16().unwrap_or(443)),
        };
        Ok(Line { host, port, name, ca_bundle: target.ca_bundle.clone() })
    }

    /// Over a connection that was kept, or a new one: the other end may have closed a kept one in the meantime.
    async fn send(
        &self,
        line: &Line,
        request: Request<Full<Bytes>>,
    ) -> io::Result<(http::Response<hyper::body::Incoming>, Sender)> {
        while let Some(mut sender) = self.kept(line) {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.send_request(request.clone()).await {
                Ok(answer) => return Ok((answer, sender)),
                Err(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let mut sender = self.connect(line).await?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok((answer, sender))
    }

    async fn connect(&self, line: &Line) -> io::Result<Sender> {
        let tcp = self.dial.dial(&line.host, line.port).await.map_err(|error| dialing(line, &error))?;
        let name = rustls_pki_types::ServerName::try_from(line.name.clone()).map_err(io::Error::other)?;
        let config = trust::config(&line.ca_bundle).map_err(io::Error::other)?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a webhook ended");
            }
        });
        Ok(sender)
    }

    fn kept(&self, line: &Line) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(line)?;
        while let Some((sender, since)) = kept.pop() {
            if since.elapsed() < IDLE_FOR && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, line: Line, sender: Sender) {
        let mut idle = self.idle.lock();
        for kept in idle.values_mut() {
            kept.retain(|(sender, since)| since.elapsed() < IDLE_FOR && !sender.is_closed());
        }
        idle.retain(|_, kept| !kept.is_empty());
        if !sender.is_closed() && idle.values().map(Vec::len).sum::<usize>() < MAX_IDLE {
            idle.entry(line).or_default().push((sender, Instant::now()));
        }
    }
}

/// The URL with the time that is left, in whole seconds.
fn address(target: &Target, limit: Duration) -> Result<String, String> {
    let mut url = match &target.place {
        Place::Url(url) => url.clone(),
        Place::Service { namespace, name, path, port } => {
            let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
            format!("https://{name}.{namespace}.svc:{port}{slash}{path}")
        }
        Place::Nowhere => return Err("webhook configuration must have either service or URL".into()),
    };
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    if !rest.contains('/') {
        url.push('/');
    }
    let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    let _ = write!(url, "{}timeout={seconds}s", if url.contains('?') { "&" } else { "?" });
    Ok(url)
}

fn dialing(line: &Line, error: &io::Error) -> io::Error {
    let host = if line.host.contains(':') { format!("[{}]", line.host) } else { line.host.clone() };
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::TimedOut => "i/o timeout".into(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("dial tcp {host}:{}: {why}", line.port))
}

/// A failed handshake in Go's words, as far as clients are used to them.
fn go_text(error: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(Error::InvalidCertificate(certificate)) = inner else { return error.to_string() };
    let why = match certificate {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<String> = presented.iter().map(|name| bare(name)).collect();
            format!("certificate is valid for {}, not {}", names.join(", "), expected.to_str())
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}

/// `DnsName("a.svc")` as `a.svc`.
fn bare(presented: &str) -> String {
    presented.split('"').nth(1).unwrap_or(presented).to_owned()
}

/// What an HTTP failure means (`NewGenericServerResponse`).
fn refused(status: StatusCode, body: &str) -> String {
    let body = body.trim();
    match status.as_u16() {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        403 | 415 => body.to_owned(),
        422 => "the server rejected our request due to an error in our request".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .into()
        }
        code if code >= 500 => format!("an error on the server ({body:?}) has prevented the request from succeeding"),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}
