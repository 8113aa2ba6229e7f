//! Referrers: signatures, lists of contents, attestations and whatever else says of itself that it refers to an image (OCI
//! image-spec, the field `subject`; distribution-spec, Listing Referrers).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::document::Descriptor;
use crate::reference::Reference;
use crate::registry::Registry;
use crate::resolve::Resolved;
use crate::store::{Record, Store};
use crate::{Auth, Platform, Registries, Result};

/// A manifest or index that refers to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// `sha256:...`.
    pub digest: String,
    /// What kind of document it is.
    pub media_type: String,
    /// What it is for, in its author's words: `application/spdx+json`. Empty where he says nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// Bytes of the document itself.
    pub size_bytes: u64,
    /// Said of it by its author.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The digest of what it refers to.
    pub subject: String,
}

/// What refers, at its registry, to what a reference names: to the index where it is one, or with a platform to that one's
/// manifest. Of one artifact type, or of all. Nothing of it is verified: it is what the registry says.
pub async fn referrers(
    reference: &str,
    platform: Option<&Platform>,
    artifact_type: Option<&str>,
    auth: &Auth,
    registries: &Registries,
) -> Result<Vec<Referrer>> {
    let reference = Reference::parse(reference)?;
    let registry = Registry::to_pull(&reference, auth, registries)?;
    let name = reference.to_string();
    let subject = match platform {
        Some(platform) => Resolved::of(&registry, &reference, platform).await?.digest,
        None => registry.document(reference.tag_or_digest()?, None, &name).await?.1,
    };
    let found = registry.referrers(&subject, artifact_type, &name).await?;
    Ok(found.into_iter().map(|one| Referrer::new(one, subject.clone())).collect())
}

impl Referrer {
    fn new(descriptor: Descriptor, subject: String) -> Self {
        let Descriptor { media_type, digest, size, artifact_type, annotations, .. } = descriptor;
        Self { digest, media_type, artifact_type, size_bytes: size, annotations, subject }
    }
}

impl Store {
    /// What came with an image.
    pub(crate) fn referrers(&self, record: &Record) -> Result<Vec<Referrer>> {
        let read = |digest: &String| {
            let (document, bytes) = self.document(digest)?;
            let subject = document.subject().map(|subject| subject.digest.clone());
            Ok(subject.map(|subject| Referrer::new(document.describe(&bytes), subject)))
        };
        record.referrers.iter().filter_map(|digest| read(digest).transpose()).collect()
    }
}
