//! Pull: manifests, then layers in parallel, streamed to the disk and verified. What has arrived of a blob outlives the
//! process and is taken up by the next one. What a registry lied about leaves nothing behind.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt};
use tokio::sync::{mpsc, watch};

use crate::document::{self, Descriptor, Manifest, malformed};
use crate::ingest::Ingest;
use crate::partial;
use crate::reference::Reference;
use crate::registry::Registry;
use crate::resolve::Resolved;
use crate::store::{Record, Store};
use crate::{Auth, Error, Image, Progress, PullOptions, Result};

mod attached;
mod fetch;

use attached::Attached;

/// One pull under way.
struct Pull<'a, P> {
    store: &'a Store,
    registry: Registry,
    reference: &'a Reference,
    options: &'a PullOptions,
    progress: P,
    /// Set when a blob has failed: the others need not come.
    stopped: watch::Sender<bool>,
}

impl Store {
    /// Fetches an image from its registry. What is here already is not fetched again, and of what is here in part only the
    /// rest. `auth` is for the registry itself, and for none of its mirrors.
    pub async fn pull(
        &self,
        reference: &str,
        auth: &Auth,
        options: &PullOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Image> {
        let reference = &Reference::parse(reference)?;
        let registry = Registry::to_pull(reference, auth, &options.registries)?;
        let stopped = watch::Sender::new(false);
        let pull = Pull { store: self, registry, reference, options, progress, stopped };
        let result = pull.run().await;
        if result.as_ref().is_err_and(|error| !error.is_passing()) {
            let store = self.clone();
            let _ = blocking(move || store.sweep_unused()).await;
        }
        result
    }
}

impl<P: Fn(Progress) + Send + Sync> Pull<'_, P> {
    async fn run(&self) -> Result<Image> {
        let resolved = Resolved::of(&self.registry, self.reference, &self.options.platform).await?;
        let ingest = self.store.ingest()?;
        let attached = match self.options.referrers {
            true => self.attached(&resolved, &ingest).await?,
            false => Attached::default(),
        };
        let manifest = &resolved.manifest;
        let wanted: Vec<_> = manifest.layers.iter().chain([&manifest.config]).chain(&attached.blobs).collect();
        let documents = attached.documents.iter().chain([&resolved.digest]);
        ingest.hold(self.store, wanted.iter().map(|wanted| &wanted.digest).chain(documents).map(String::as_str))?;
        self.blobs(manifest, wanted).await?;
        self.finish(resolved, attached.documents, ingest).await
    }

    async fn blobs(&self, manifest: &Manifest, mut wanted: Vec<&Descriptor>) -> Result<()> {
        let mut seen = BTreeSet::new();
        wanted.retain(|wanted| seen.insert(&wanted.digest));
        let total_bytes = wanted.iter().map(|wanted| wanted.size).fold(0u64, u64::saturating_add);
        if total_bytes > self.options.max_unpacked_bytes || manifest.config.size > document::MAX_DOCUMENT_BYTES {
            return Err(malformed(
                &self.reference.to_string(),
                format!("layers[].size: {total_bytes} bytes are too many"),
            ));
        }
        (self.progress)(Progress::Resolved { layers: manifest.layers.len(), total_bytes });
        let parallel = self.options.parallel_layers.clamp(1, 16);
        let fetches: Vec<_> = wanted.iter().map(|wanted| self.blob(wanted)).collect();
        let mut results = stream::iter(fetches).buffer_unordered(parallel);
        let mut failure = None;
        // Each comes to its end, so that nobody writes any more to what is removed.
        while let Some(result) = results.next().await {
            if let Err(error) = result {
                self.stopped.send_replace(true);
                failure.get_or_insert(error);
            }
        }
        let Some(error) = failure else { return Ok(()) };
        // The rest may come another time; what was wrong may not stay.
        let dir = self.store.partials();
        wanted.iter().for_each(|wanted| partial::forget(&dir, &wanted.digest, error.is_passing()));
        Err(error)
    }

    async fn finish(&self, resolved: Resolved, referrers: BTreeSet<String>, ingest: Ingest) -> Result<Image> {
        let (store, reference, max_bytes) =
            (self.store.clone(), self.reference.clone(), self.options.max_unpacked_bytes);
        // Every layer reports once, and a manifest has at most 500.
        let (sender, mut receiver) = mpsc::channel(512);
        let work = tokio::task::spawn_blocking(move || {
            store.put_blob(&ingest.path, &resolved.bytes)?;
            let chain = store.unpack(&resolved.manifest, &ingest, max_bytes, |digest| {
                let _ = sender.try_send(digest.to_owned());
            })?;
            let pinned = [&resolved.digest, &resolved.top].map(|digest| format!("{}@{digest}", reference.name()));
            let names = reference.tagged().filter(|_| reference.digest.is_none());
            let record = Record {
                manifest: resolved.digest,
                names: names.into_iter().collect(),
                digests: pinned.into(),
                pinned: reference.digest.is_some(),
                chain,
                referrers,
            };
            store.record(&resolved.manifest.config.digest, record)
        });
        while let Some(digest) = receiver.recv().await {
            (self.progress)(Progress::Unpacked { digest });
        }
        work.await.map_err(|e| Error::Transport(e.to_string()))?
    }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Transport(e.to_string()))?
}
