//! A `kube::Client` made from a kubeconfig, a token or this very process; identity and live certificates.
//!
//! Every component talks to the API server through a [`Client`] of this crate, in one process or in many: in process the
//! same HTTP goes over an in-memory pipe. Requests share one HTTP/2 connection; upgrades (exec, attach, port-forward)
//! each have an HTTP/1.1 connection of their own. Names are resolved by hickory, since a static binary has no
//! getaddrinfo. Files that a client was made from are read again when they change, so a renewed certificate or token
//! takes effect with the next request.

mod certificate;
mod connector;
mod files;
pub mod issue;
pub mod join;
mod kubeconfig;
mod resolve;
pub mod signature;
mod target;
mod tls;
mod transport;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::DuplexStream;

pub use certificate::{Validity, validity};
pub use connector::dial;
pub use files::write_secret;
pub use kubeconfig::{Kubeconfig, User};
pub use target::{Credentials, Material, Target};

pub use kube;

/// The client that everything takes.
pub type Client = kube::Client;

/// Why a client cannot be made, or an identity not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the kubeconfig {path} is not usable: {why}", path = path.display())]
    Kubeconfig { path: PathBuf, why: String },
    #[error("the server address {0:?} is not a URL")]
    Server(String),
    #[error("no certificate or key in {0}")]
    Pem(String),
    #[error("TLS")]
    Tls(#[from] rustls::Error),
    #[error("the token does not have the form K10<sha256 of the CA certificate>::<id>.<secret>")]
    Token,
    #[error("no answer from {server}")]
    Connect { server: String, source: std::io::Error },
    #[error("the server's CA is not the one that the token names")]
    Pin,
    #[error("the certificate request {name} was {verdict}: {message}")]
    Refused { name: String, verdict: String, message: String },
    #[error("the certificate request {0} was not signed in time")]
    Unsigned(String),
    #[error("a certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    #[error("the API server")]
    Api(#[from] kube::Error),
}

/// A client for the current context of a kubeconfig file. Certificates, keys, token files and the CA that it names by
/// path are read again when they change.
pub fn from_kubeconfig(path: impl AsRef<Path>) -> Result<Client, Error> {
    Target::from_kubeconfig(path.as_ref())?.client()
}

/// A client that shows a bearer token, for a server whose certificate `ca_pem` signed.
pub fn from_token(server: &str, ca_pem: &str, token: &str) -> Result<Client, Error> {
    let credentials = Credentials::Token(Material::Data(token.into()));
    Target::new(server, Material::Data(ca_pem.into()), credentials)?.client()
}

/// A client of a server in the same process: `connect` makes one connection a call, already under an identity.
pub fn in_process(connect: impl Fn() -> DuplexStream + Send + Sync + 'static) -> Client {
    transport::local(Arc::new(connect))
}
