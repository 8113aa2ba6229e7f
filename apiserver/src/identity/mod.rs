//! Who a connection or a token belongs to; the certificate authority; token signing.
//!
//! [`Identity::open`] makes or reads everything below one folder. It answers for client certificates, service account
//! tokens and bootstrap tokens, and keeps the server's own certificates fresh.

mod authenticator;
mod bootstrap_token;
mod claims;
pub(crate) mod front_proxy;
mod jwt;
mod keeper;
mod pages;
mod pki;
mod reviews;
mod tls;
mod token_request;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::Timestamp;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::parts::{Answer, Pages, Parts};
use crate::{admission, audit, authz, reviews as access};

pub use authenticator::Tokens;
pub use front_proxy::Trust;
pub use jwt::Signer;
pub use pki::{Pair, Pki, Usage, Wanted};
pub(crate) use reviews::info as user_info;
pub(crate) use tls::{provider, roots};

/// Why an identity cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("a file of the PKI")]
    File(#[from] client::Error),
    #[error("{path} is not a usable key: {why}", path = path.display())]
    Key { path: PathBuf, why: String },
    #[error("a certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS")]
    Tls(#[from] rustls::Error),
    #[error("the certificate or key of the server is not usable: {0}")]
    Pem(String),
}

/// How an identity is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of keys and certificates.
    pub folder: PathBuf,
    /// Where kubeconfig files of the administrator and the components go.
    pub kubeconfigs: PathBuf,
    /// `https://host:port`, as kubeconfig files name the server.
    pub server: String,
    /// Addresses besides loopback at which the server is reached: node addresses, the first service address.
    pub addresses: Vec<IpAddr>,
    /// Names besides `localhost` and `kubernetes...`.
    pub names: Vec<String>,
    /// Who signs service account tokens, and the default audience.
    pub issuer: String,
    /// `host:port` of the key set's address in the discovery document.
    pub advertise: String,
    /// Where audit lines go, if wanted.
    pub audit: Option<PathBuf>,
}

impl Options {
    /// Upstream's issuer.
    pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    /// With defaults, below a data directory.
    pub fn new(data: impl Into<PathBuf>, server: &str) -> Self {
        let data = data.into();
        Self {
            folder: data.join("pki"),
            kubeconfigs: data,
            server: server.into(),
            addresses: Vec::new(),
            names: Vec::new(),
            issuer: Self::ISSUER.into(),
            advertise: server.trim_start_matches("https://").into(),
            audit: None,
        }
    }
}

/// A server's identity.
pub struct Identity {
    options: Options,
    pki: Pki,
    front_proxy: Pki,
    tokens: Arc<Tokens>,
    tls: watch::Sender<Arc<ServerConfig>>,
}

impl Identity {
    /// Reads what is below the folder, makes what is missing or due, and writes the kubeconfig files.
    pub fn open(options: Options, now: Timestamp) -> Result<Self, Error> {
        let pki = Pki::open(&options.folder, pki::CLUSTER, now)?;
        let front_proxy = Pki::open(&options.folder, pki::FRONT_PROXY, now)?;
        let signer = Signer::open(&options.folder.join("sa.key"), &options.issuer)?;
        let tokens = Arc::new(Tokens::new(signer, pki.ca_pem(), front_proxy.ca_pem())?);
        let serving = keeper::renew(&pki, &front_proxy, &options, now)?;
        let tls = watch::Sender::new(Arc::new(tls::config(&serving, &[&pki, &front_proxy])?));
        Ok(Self { options, pki, front_proxy, tokens, tls })
    }

    /// Whom servers behind this one may trust as it does.
    pub fn trust(&self) -> Trust {
        Trust { client_ca: self.pki.ca_pem().to_owned(), front_proxy_ca: self.front_proxy.ca_pem().to_owned() }
    }

    /// The certificates and the CA.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The TLS configuration, new after each renewal.
    pub fn tls(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.tls.subscribe()
    }

    /// Says who tokens and certificates belong to, and signs tokens.
    pub fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens)
    }

    /// All parts of an API server but the ways out, which [`crate::proxy::connects`] has.
    pub fn parts(&self) -> Parts {
        let authorizers = authz::authorizers();
        Parts {
            dial: Arc::new(crate::proxy::Direct),
            authenticator: self.tokens(),
            authorizers: authorizers.clone(),
            admission: admission::PLUGINS.to_vec(),
            answers: self.answers(&authorizers),
            connects: Vec::new(),
            audit: self.options.audit.clone().map(|path| audit::file(path) as _),
            pages: Some(Arc::new(pages::OpenId::new(&self.tokens, &self.options.advertise)) as Arc<dyn Pages>),
        }
    }

    fn answers(
        &self,
        authorizers: &[Arc<dyn authz::Authorizer>],
    ) -> Vec<(&'static str, &'static str, Arc<dyn Answer>)> {
        const AUTHENTICATION: &str = "authentication.k8s.io";
        let mut all: Vec<(&'static str, &'static str, Arc<dyn Answer>)> = vec![
            ("", "serviceaccounts/token", Arc::new(token_request::TokenRequests(self.tokens()))),
            (AUTHENTICATION, "tokenreviews", Arc::new(reviews::TokenReviews(self.tokens()))),
            (AUTHENTICATION, "selfsubjectreviews", Arc::new(reviews::SelfSubjectReviews)),
        ];
        all.extend(access::answers(authorizers));
        all
    }

    /// Keeps certificates and kubeconfig files fresh for as long as it is polled.
    pub async fn keep(&self) {
        keeper::keep(self).await;
    }
}

/// The files of the client certificate that nodes are dialled with.
pub(crate) fn kubelet_client(identity: &Identity) -> (PathBuf, PathBuf) {
    identity.pki.paths(keeper::KUBELET_CLIENT)
}
