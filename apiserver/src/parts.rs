//! What a server is assembled from: the traits that identity, authorization, audit and the ways out implement.

use std::net::SocketAddr;
use std::sync::Arc;

use api::{Document, StatusResult, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;

use crate::admission;
use crate::attributes::{Attributes, User};
use crate::authz::Authorizer;
use crate::proxy::Dial;
use crate::view::View;

/// The body of every response. It ends with an error where the connection must be cut.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A whole body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Says who is at the other end.
pub trait Authenticator: Send + Sync {
    /// The user of a client certificate, asked once a connection after the handshake. The chain is not verified yet
    /// (the TLS layer asks for a certificate but takes none as well); `None` where it is not ours.
    fn certificate(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Option<User>;

    /// Whether a chain is that of a front proxy, which says in headers whose requests it passes on.
    fn is_front_proxy(&self, _chain: &[CertificateDer<'_>], _now: Timestamp) -> bool {
        false
    }

    /// The user of a bearer token; `None` where it is not valid: the request then ends with 401.
    fn token(&self, token: &str, view: &dyn View, now: Timestamp) -> Option<User>;
}

/// A create that answers instead of storing: the access reviews, TokenReview, SelfSubjectReview, TokenRequest.
pub trait Answer: Send + Sync {
    /// The answer, from the decoded, defaulted and admitted object. `attributes` names the resource, the subresource and
    /// the object of the path.
    fn answer(
        &self,
        object: Document,
        attributes: &Attributes,
        view: &dyn View,
        now: Timestamp,
    ) -> StatusResult<Document>;
}

/// A subresource that connects to somewhere else: log, exec, attach, portforward, proxy of pods, nodes and services.
#[async_trait]
pub trait Connect: Send + Sync {
    /// Answers the (authorized and admitted) request. It may be an upgrade: `hyper::upgrade::on` works on it.
    async fn connect(
        &self,
        request: http::Request<Incoming>,
        attributes: &Attributes,
        view: &dyn View,
    ) -> StatusResult<http::Response<Body>>;
}

/// One request, as audit sees it when the response's head is known.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Audited {
    pub id: String,
    pub attributes: Attributes,
    /// Who asked before impersonation, where that differs.
    pub impersonator: Option<User>,
    pub method: String,
    pub uri: String,
    pub user_agent: String,
    pub peer: Option<SocketAddr>,
    pub code: u16,
    pub received: Timestamp,
    pub answered: Timestamp,
    /// What admission notes.
    pub annotations: Vec<(String, String)>,
}

/// Where audit events go. Must not block.
pub trait Audit: Send + Sync {
    /// Takes one event.
    fn record(&self, event: Audited);
}

/// Plain pages besides the server's own, such as `/openid/v1/jwks`: content type and body of a path.
pub trait Pages: Send + Sync {
    /// The page at a path, if there is one.
    fn page(&self, path: &str) -> Option<(&'static str, Vec<u8>)>;
}

/// All parts.
#[derive(Clone)]
pub struct Parts {
    /// Certificates and tokens.
    pub authenticator: Arc<dyn Authenticator>,
    /// Asked in order.
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// Admission plugins, in order.
    pub admission: Vec<&'static dyn admission::Plugin>,
    /// By group, `plural` or `plural/subresource`.
    pub answers: Vec<(&'static str, &'static str, Arc<dyn Answer>)>,
    /// By group and `plural/subresource`.
    pub connects: Vec<(&'static str, &'static str, Arc<dyn Connect>)>,
    /// How to get to webhooks.
    pub dial: Arc<dyn Dial>,
    /// Audit, if wanted.
    pub audit: Option<Arc<dyn Audit>>,
    /// Further pages.
    pub pages: Option<Arc<dyn Pages>>,
}
