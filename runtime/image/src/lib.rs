//! Images: references, a content-addressed store, pull over HTTP(S), import of OCI layouts and docker archives,
//! unpacked layers for overlayfs. No Kubernetes.

use std::path::PathBuf;

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

// To be built:
//
// pub struct Store { .. }                                   // <data>/images, mode 0700; safe for several processes
// impl Store {
//     pub fn open(root: &Path) -> Result<Self>;
//     pub fn get(&self, reference: &str) -> Result<Option<Image>>;            // by name, digest or id
//     pub fn list(&self) -> Result<Vec<Image>>;
//     pub async fn pull(&self, reference: &str, auth: &Auth, options: &PullOptions, progress: impl Fn(Progress)) -> Result<Image>;
//     pub fn import(&self, archive: &Path, name: Option<&str>) -> Result<Vec<Image>>;   // OCI layout dir or tar, docker-archive
//     /// An image of one static executable, with no registry and no network.
//     pub fn add_executable(&self, name: &str, executable: &Path, entrypoint: &[&str]) -> Result<Image>;
//     pub fn remove(&self, reference: &str) -> Result<()>;
//     pub fn collect(&self, in_use: &[String]) -> Result<u64>;                // bytes freed
// }
