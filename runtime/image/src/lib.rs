//! Images: references, a content-addressed store, pull over HTTP(S), import of OCI layouts and docker archives,
//! unpacked layers for overlayfs. No Kubernetes.

use std::path::PathBuf;

mod blob;
mod document;
mod executable;
mod import;
mod layer;
mod pull;
mod reference;
mod store;

pub use reference::Reference;
pub use store::Store;

/// Why an image operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reference is not a valid image name.
    #[error("invalid reference format: {0}")]
    Reference(String),
    /// No such image here or at the registry.
    #[error("{0}: not found")]
    NotFound(String),
    /// The registry refused our credentials.
    #[error("{0}: authorization failed")]
    Unauthorized(String),
    /// What arrived is not what its digest says.
    #[error("{digest}: got {got}")]
    #[allow(missing_docs)]
    Digest { digest: String, got: String },
    /// The archive or layer is malformed or hostile.
    #[error("{0}")]
    Malformed(String),
    /// The network or the registry failed; trying again may help.
    #[error("{0}")]
    Transport(String),
    /// The disk failed.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}

/// The result of an image operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An image that is whole in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The digest of its configuration, `sha256:...`: the image's id.
    pub id: String,
    /// Every name that points to it, normalised (`docker.io/library/nginx:latest`).
    pub names: Vec<String>,
    /// `name@sha256:...` of every manifest known for it.
    pub digests: Vec<String>,
    /// Bytes of all blobs.
    pub size_bytes: u64,
    /// Entry point, command, environment, user, working directory, stop signal, exposed ports, volumes, labels.
    pub config: oci_spec::image::Config,
    /// Unpacked layers for overlayfs, topmost first.
    pub layers: Vec<PathBuf>,
}

/// Credentials for one registry.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Auth {
    Anonymous,
    Basic { username: String, password: String },
    Bearer(String),
}

/// How to pull.
#[derive(Clone, Debug, PartialEq)]
pub struct PullOptions {
    /// Layers fetched at the same time.
    pub parallel_layers: usize,
    /// Registries (`host[:port]`) spoken to over plain HTTP.
    pub plain_http: Vec<String>,
    /// Refuse an image whose layers hold more bytes than this, unpacked.
    pub max_unpacked_bytes: u64,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { parallel_layers: 3, plain_http: Vec::new(), max_unpacked_bytes: 64 << 30 }
    }
}

/// How far a pull has come.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Progress {
    /// The manifest is known.
    Resolved { layers: usize, total_bytes: u64 },
    /// More of a blob has arrived.
    Fetched { digest: String, done_bytes: u64, total_bytes: u64 },
    /// A layer is unpacked (or was already there).
    Unpacked { digest: String },
}
