//! How to reach registries, how to pull, how far work has come.

use std::collections::BTreeMap;
use std::fmt;

/// Credentials for one registry.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Auth {
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// Sent as it is.
    Bearer(String),
    /// Exchanged for a bearer token where the registry says so (Docker's `identitytoken`).
    Identity(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
            Self::Identity(_) => "Identity",
        })
    }
}

/// What is known of registries beyond their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registries {
    /// Registries (`host[:port]`) spoken to over plain HTTP.
    pub plain_http: Vec<String>,
    /// By the registry's name as references have it (`docker.io`), and mirrors by their `host[:port]`.
    pub hosts: BTreeMap<String, Host>,
}

/// One registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// URLs of mirrors, asked in this order before the registry itself, for pulls only.
    pub mirrors: Vec<String>,
    /// Who it is spoken to as, where the caller names nobody.
    pub auth: Option<Auth>,
    /// Certificates (PEM) that are trusted here beside the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Our own certificate and key (PEM).
    pub client_pem: Option<Vec<u8>>,
}

/// A platform in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        Self { os: "linux".to_owned(), architecture: crate::document::architecture().to_owned(), variant: None }
    }

    /// `os/architecture[/variant]`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next());
        let whole = parts.next().is_none() && ![&os, &architecture].iter().any(|part| part.is_empty());
        whole.then_some(Self { os, architecture, variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// How to pull.
#[derive(Clone, Debug, PartialEq)]
pub struct PullOptions {
    /// Layers fetched at the same time.
    pub parallel_layers: usize,
    /// How registries are reached.
    pub registries: Registries,
    /// Refuse an image whose layers hold more bytes than this, as they come (with what refers to it) or unpacked.
    pub max_unpacked_bytes: u64,
    /// Which image of an index is wanted.
    pub platform: Platform,
    /// Bring what refers to the image, too.
    pub referrers: bool,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            parallel_layers: 3,
            registries: Registries::default(),
            max_unpacked_bytes: 64 << 30,
            platform: Platform::host(),
            referrers: false,
        }
    }
}

/// How to push.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PushOptions {
    /// How registries are reached.
    pub registries: Registries,
    /// Send what came with the image, too.
    pub referrers: bool,
}

/// How far a pull or a push has come.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Progress {
    /// The manifest is known.
    Resolved { layers: usize, total_bytes: u64 },
    /// So many manifests and indexes come with the image.
    Attached { documents: usize },
    /// A blob is on the other side already.
    Present { digest: String },
    /// More of a blob has arrived.
    Fetched { digest: String, done_bytes: u64, total_bytes: u64 },
    /// A layer is unpacked (or was already there).
    Unpacked { digest: String },
    /// More of a blob was sent.
    Sent { digest: String, done_bytes: u64, total_bytes: u64 },
}
