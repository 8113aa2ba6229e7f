//! Images: references, a content-addressed store, pull from and push to registries, import and export of OCI layouts and
//! docker-archives, unpacked layers for overlayfs. No Kubernetes.

use std::path::PathBuf;

mod archive;
mod blob;
mod collect;
mod credentials;
mod document;
mod executable;
mod export;
mod import;
mod ingest;
mod layer;
mod options;
mod partial;
mod pull;
mod push;
mod reference;
mod referrers;
mod registry;
mod resolve;
mod store;
mod tree;
mod verify;

pub use credentials::{Credentials, Found};
pub use options::{Auth, Host, Platform, Progress, PullOptions, PushOptions, Registries};
pub use reference::Reference;
pub use referrers::{Referrer, referrers};
pub use store::{Details, Store};

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

impl Error {
    /// Whether the same may succeed another time, though nothing is done about it.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Transport(_))
    }
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
