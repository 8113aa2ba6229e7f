//! Push: what the registry lacks of an image, layers first, the manifest's tag last, so that nobody finds one that is not
//! whole, or that lacks what refers to it.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::Body;
use tokio::sync::{mpsc, watch};

use crate::blob;
use crate::document::{Descriptor, Document};
use crate::reference::Reference;
use crate::registry::{ATTEMPTS, Endpoint};
use crate::store::{Record, Store};
use crate::{Auth, Error, Progress, PushOptions, Result};

/// Layers sent at the same time.
const PARALLEL: usize = 3;
/// Chunks between the disk and the network, and bytes of each.
const CHUNKS: usize = 8;
const CHUNK_BYTES: usize = 1 << 17;

/// A document, and the bytes that it was read from.
type Read = (Document, Vec<u8>);

/// One push under way.
struct Push<'a, P> {
    store: &'a Store,
    /// What errors speak of.
    target: String,
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
        options: &PushOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<String> {
        let target = Reference::parse(target)?;
        let tag = target.tag.clone().filter(|_| target.digest.is_none());
        let tag = tag.ok_or_else(|| Error::Reference(format!("{target}: a tag is needed to push to")))?;
        // Held so that no collection takes away what is being sent.
        let ingest = self.ingest()?;
        let (_, record) = self.find(image)?.ok_or_else(|| Error::NotFound(image.to_owned()))?;
        let own = self.document(&record.manifest)?;
        let referring = if options.referrers { self.referring(&record)? } else { Vec::new() };
        let documents = referring.iter().chain([&own]).map(|(document, _)| document);
        let held = documents.flat_map(Document::blobs).map(|blob| &blob.digest).chain(&record.referrers);
        ingest.hold(self, held.chain([&record.manifest]).map(String::as_str))?;
        let siblings = siblings(&record.digests, &target);
        let endpoint = Endpoint::to_push(&target, auth, &options.registries)?;
        let push = Push { store: self, target: target.to_string(), endpoint, siblings, chain: record.chain, progress };
        push.all(&tag, &own, &referring).await.map_err(|error| match error {
            // It is not about this blob.
            Error::Unauthorized(_) => Error::Unauthorized(target.to_string()),
            error => error,
        })?;
        Ok(record.manifest)
    }

    /// What came with an image: manifests before the indexes that name them.
    fn referring(&self, record: &Record) -> Result<Vec<Read>> {
        let mut all = record.referrers.iter().map(|digest| self.document(digest)).collect::<Result<Vec<_>>>()?;
        all.sort_by_key(|(document, _)| !document.manifests().is_empty());
        Ok(all)
    }
}

impl<P: Fn(Progress) + Send + Sync> Push<'_, P> {
    async fn all(&self, tag: &str, own: &Read, referring: &[Read]) -> Result<()> {
        let documents = || referring.iter().chain([own]).map(|(document, _)| document);
        let total_bytes = documents().flat_map(Document::blobs).map(|d| d.size).fold(0u64, u64::saturating_add);
        (self.progress)(Progress::Resolved { layers: self.chain.len(), total_bytes });
        self.blobs(&own.0).await?;
        if !referring.is_empty() {
            // Not every registry takes what refers to nothing.
            self.put(&blob::digest(&own.1), own).await?;
        }
        for read in referring {
            self.blobs(&read.0).await?;
            self.put(&blob::digest(&read.1), read).await?;
        }
        self.put(tag, own).await
    }

    async fn put(&self, name: &str, (document, bytes): &Read) -> Result<()> {
        self.endpoint.put_document(name, document, bytes, &self.target).await
    }

    async fn blobs(&self, document: &Document) -> Result<()> {
        let mut seen = BTreeSet::new();
        // ChainIDs are of the image's layers; those of other documents are kept as they came.
        let layers = self.chain.iter().map(Some).chain(std::iter::repeat(None));
        let all = document.blobs().zip(layers).filter(|(blob, _)| seen.insert(&blob.digest));
        let sends: Vec<_> = all.map(|(blob, layer)| self.blob(blob, layer)).collect();
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
fn body(mut source: Box<dyn io::Read + Send>, counter: watch::Sender<u64>) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
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
fn siblings(digests: &BTreeSet<String>, target: &Reference) -> Vec<String> {
    let known = digests.iter().filter_map(|digest| Reference::parse(digest).ok());
    let others = known.filter(|known| known.registry == target.registry && known.repository != target.repository);
    others.map(|known| known.repository).collect()
}
