//! What refers to an image, and to that in turn: documents first, their blobs with the layers.

use std::collections::BTreeSet;

use super::{Pull, blocking};
use crate::document::{self, Descriptor, Document, malformed};
use crate::ingest::Ingest;
use crate::registry::MAX_REFERRERS;
use crate::resolve::Resolved;
use crate::{Progress, Result};

/// What comes with an image.
#[derive(Default)]
pub(super) struct Attached {
    /// Digests of manifests and indexes, which are in the store.
    pub(super) documents: BTreeSet<String>,
    /// What those name, which is not.
    pub(super) blobs: Vec<Descriptor>,
}

impl<P: Fn(Progress) + Send + Sync> Pull<'_, P> {
    /// Brings the documents of what refers to the manifest, or to the index that it was chosen from. As long as nothing is
    /// held in `ingest`, nothing is collected.
    pub(super) async fn attached(&self, resolved: &Resolved, ingest: &Ingest) -> Result<Attached> {
        let what = self.reference.to_string();
        let mut found = Attached::default();
        let mut subjects: Vec<String> = [&resolved.digest, &resolved.top].map(String::clone).into();
        subjects.dedup();
        while let Some(subject) = subjects.pop() {
            let listed = self.registry.referrers(&subject, None, &what).await?;
            let mut rest: Vec<_> = listed.into_iter().map(|one| (one, true)).collect();
            while let Some((descriptor, refers)) = rest.pop() {
                if !found.documents.insert(descriptor.digest.clone()) {
                    continue;
                }
                if found.documents.len() > MAX_REFERRERS {
                    return Err(malformed(&what, format!("more than {MAX_REFERRERS} documents refer to it")));
                }
                let document = self.referring(&descriptor, ingest).await?;
                if refers && document.subject().is_none_or(|of| of.digest != subject) {
                    return Err(malformed(&descriptor.digest, format!("it does not refer to {subject}, as was said")));
                }
                rest.extend(document.manifests().iter().map(|one| (one.clone(), false)));
                found.blobs.extend(document.blobs().cloned());
                subjects.push(descriptor.digest);
            }
        }
        (self.progress)(Progress::Attached { documents: found.documents.len() });
        Ok(found)
    }

    async fn referring(&self, descriptor: &Descriptor, ingest: &Ingest) -> Result<Document> {
        let digest = descriptor.digest.as_str();
        if self.store.has_blob(digest) {
            return Ok(self.store.document(digest)?.0);
        }
        let (bytes, _) = self.registry.document(digest, Some(descriptor.size), digest).await?;
        let (store, path) = (self.store.clone(), ingest.path.clone());
        blocking(move || {
            let document = document::parse(&bytes, &crate::blob::digest(&bytes))?;
            store.put_blob(&path, &bytes).map(|_| document)
        })
        .await
    }
}
