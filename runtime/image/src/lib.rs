//! Images: references, a content-addressed store, pull over HTTP(S), import of OCI layouts and docker archives,
//! unpacked layers for overlayfs. No Kubernetes.

use std::path::{Path, PathBuf};

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

/// The images of an instance, in a directory of mode 0700. Safe for several processes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store below `root` (`<data>/images`), making it where absent and clearing what a killed process left.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_owned() })
    }

    /// The image by name (normalised as docker does), `name@sha256:...`, id, or a unique prefix of an id.
    pub fn get(&self, reference: &str) -> Result<Option<Image>> {
        let _ = (&self.root, reference);
        Ok(None)
    }

    /// All images, by id.
    pub fn list(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    /// Fetches an image of this machine's platform from its registry. What is here already is not fetched again.
    pub async fn pull(
        &self,
        reference: &str,
        auth: &Auth,
        options: &PullOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Image> {
        let _ = (auth, options, progress);
        Err(Error::NotFound(reference.to_owned()))
    }

    /// Imports an OCI layout (directory or tar) or a docker-archive. `name` replaces the names in the archive, which
    /// then must hold one image.
    pub fn import(&self, archive: &Path, name: Option<&str>) -> Result<Vec<Image>> {
        let _ = name;
        Err(Error::Malformed(archive.display().to_string()))
    }

    /// An image of one static executable (as `/<its file name>`), with no registry and no network.
    pub fn add_executable(&self, name: &str, executable: &Path, entrypoint: &[&str]) -> Result<Image> {
        let _ = (executable, entrypoint);
        Err(Error::NotFound(name.to_owned()))
    }

    /// Removes a name, or with an id all names of an image. Blobs stay until [`Store::collect`]. No error where absent.
    pub fn remove(&self, reference: &str) -> Result<()> {
        let _ = reference;
        Ok(())
    }

    /// Removes every blob and layer that no name and none of the ids `in_use` needs. Returns the bytes freed.
    pub fn collect(&self, in_use: &[String]) -> Result<u64> {
        let _ = in_use;
        Ok(0)
    }
}
