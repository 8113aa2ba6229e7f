//! What a reference stands for at its registry: a manifest, behind an index where there is one.

use crate::document::{self, Document, Manifest, malformed};
use crate::reference::Reference;
use crate::registry::Registry;
use crate::{Error, Platform, Result};

/// An image's manifest.
pub(crate) struct Resolved {
    pub(crate) manifest: Manifest,
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
    /// The digest the reference itself points to: an index's where it is one.
    pub(crate) top: String,
}

impl Resolved {
    /// Asks for the manifest that suits a platform.
    pub(crate) async fn of(registry: &Registry, reference: &Reference, platform: &Platform) -> Result<Self> {
        let name = reference.to_string();
        let (bytes, top) = registry.document(reference.tag_or_digest()?, None, &name).await?;
        let (digest, bytes) = match document::parse(&bytes, &top)? {
            Document::Index(index) => {
                let missing = || Error::NotFound(format!("{name} for {platform}"));
                let chosen = document::choose(&index, platform).ok_or_else(missing)?;
                (chosen.digest.clone(), registry.document(&chosen.digest, Some(chosen.size), &name).await?.0)
            }
            Document::Manifest(_) => (top.clone(), bytes),
        };
        match document::parse(&bytes, &digest)? {
            Document::Index(_) => Err(malformed(&digest, "an index within an index")),
            manifest => Ok(Self { manifest: document::image(manifest, &digest)?, digest, bytes, top }),
        }
    }
}
