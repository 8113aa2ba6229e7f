//! Push: what the registry lacks of an image, layers first, the manifest last, so that nobody finds one that is not whole.

use std::io::Read;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::Body;
use tokio::sync::{mpsc, watch};

use crate::document::{self, Descriptor, Manifest};
use crate::options::Registries;
use crate::reference::Reference;
use crate::registry::{ATTEMPTS, Endpoint};
use crate::store::Store;
use crate::{Auth, Error, Progress, Result};

/// Layers sent at the same time.
const PARALLEL: usize = 3;
/// Chunks between the disk and the network, and bytes of each.
const CHUNKS: usize = 8;
const CHUNK_BYTES: usize = 1 << 17;

/// One push under way.
struct Push<'a, P> {
    store: &'a Store,
    endpoint: Endpoint,
    /// Repositories of the same registry that are known to have had this image.
    siblings: Vec<String>,
    chain: Vec<String>,
    progress: P,
}

impl Store {
    /// Sends an image of this store to a registry under the name `target`. Returns the digest it has there.
    pub async fn push(
        &self,
        image: &str,
        target: &str,
        auth: &Auth,
        registries: &Registries,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<String> {
        let target = Reference::parse(target)?;
        let tag = target.tag.clone().filter(|_| target.digest.is_none());
        let tag = tag.ok_or_else(|| Error::Reference(format!("{target}: a tag is needed to push to")))?;
        // Held so that no collection takes away what is being sent.
        let ingest = self.ingest()?;
        let (_, record) = self.find(image)?.ok_or_else(|| Error::NotFound(image.to_owned()))?;
        let (manifest, bytes) = (self.manifest(&record.manifest)?, self.read_blob(&record.manifest)?);
        ingest.hold(self, manifest.layers.iter().chain([&manifest.config]).map(|d| d.digest.as_str()))?;
        let siblings = siblings(&record.digests, &target);
        let endpoint = Endpoint::to_push(&target, auth, registries)?;
        let push = Push { store: self, endpoint, siblings, chain: record.chain, progress };
        push.blobs(&manifest).await.map_err(|error| match error {
            // It is not about this blob.
            Error::Unauthorized(_) => Error::Unauthorized(target.to_string()),
            error => error,
        })?;
        let media_type = Some(manifest.media_type.as_str()).filter(|kind| !kind.is_empty());
        let media_type = media_type.unwrap_or(document::MANIFEST);
        push.endpoint.put_manifest(&tag, media_type, &bytes, &target.to_string()).await?;
        Ok(record.manifest)
    }
}

impl<P: Fn(Progress) + Send + Sync> Push<'_, P> {
    async fn blobs(&self, manifest: &Manifest) -> Result<()> {
        let total_bytes = manifest.layers.iter().map(|d| d.size).fold(0u64, u64::saturating_add);
        (self.progress)(Progress::Resolved { layers: manifest.layers.len(), total_bytes });
        let mut seen = std::collections::BTreeSet::new();
        let all = manifest.layers.iter().zip(self.chain.iter().map(Some)).chain([(&manifest.config, None)]);
        let sends: Vec<_> =
            all.filter(|(d, _)| seen.insert(d.digest.clone())).map(|(d, layer)| self.blob(d, layer)).collect();
        stream::iter(sends).buffer_unordered(PARALLEL).try_collect().await
    }

    async fn blob(&self, blob: &Descriptor, layer: Option<&String>) -> Result<()> {
        if self.endpoint.has_blob(&blob.digest).await? {
            (self.progress)(Progress::Present { digest: blob.digest.clone() });
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            match self.send(blob, layer).await {
                Err(error) if error.is_passing() && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn send(&self, blob: &Descriptor, layer: Option<&String>) -> Result<()> {
        let from = self.siblings.first().map(String::as_str);
        let Some(place) = self.endpoint.begin_upload(&blob.digest, from).await? else {
            (self.progress)(Progress::Present { digest: blob.digest.clone() });
            return Ok(());
        };
        let (counter, mut count) = watch::channel(0);
        let body = || Ok(body(self.store.open_blob(blob, layer.map(String::as_str))?, counter.clone()));
        let mut upload = std::pin::pin!(self.endpoint.upload(blob, place, &body));
        loop {
            tokio::select! {
                result = &mut upload => {
                    result?;
                    self.sent(blob, blob.size);
                    return Ok(());
                }
                Ok(()) = count.changed() => self.sent(blob, *count.borrow_and_update()),
            }
        }
    }

    fn sent(&self, blob: &Descriptor, done_bytes: u64) {
        (self.progress)(Progress::Sent { digest: blob.digest.clone(), done_bytes, total_bytes: blob.size });
    }
}

/// A body that is read on a thread of its own, and counted.
fn body(mut source: Box<dyn Read + Send>, counter: watch::Sender<u64>) -> Body {
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(CHUNKS);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = source.read(&mut chunk);
            let (last, item) = match read {
                Ok(0) => return,
                Ok(n) => {
                    chunk.truncate(n);
                    (false, Ok(Bytes::from(chunk)))
                }
                Err(e) => (true, Err(e)),
            };
            if sender.blocking_send(item).is_err() || last {
                return;
            }
        }
    });
    Body::wrap_stream(stream::unfold((receiver, counter, 0), |(mut receiver, counter, sent)| async move {
        let chunk = receiver.recv().await?;
        let sent = sent + chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        counter.send_replace(sent);
        Some((chunk, (receiver, counter, sent)))
    }))
}

/// Other repositories of the target's registry that an image was pulled from.
fn siblings(digests: &std::collections::BTreeSet<String>, target: &Reference) -> Vec<String> {
    let known = digests.iter().filter_map(|digest| Reference::parse(digest).ok());
    let others = known.filter(|known| known.registry == target.registry && known.repository != target.repository);
    others.map(|known| known.repository).collect()
}
