//! Pull: manifests, then layers in parallel, streamed to the disk and verified. What has arrived of a blob outlives the
//! process and is taken up by the next one. What a registry lied about leaves nothing behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use tokio::sync::{mpsc, watch};

use crate::document::{self, Descriptor, Document, Manifest, malformed};
use crate::ingest::Ingest;
use crate::partial::{self, Partial};
use crate::reference::Reference;
use crate::registry::{ATTEMPTS, Arriving, Endpoint, Registry};
use crate::store::{Record, Store};
use crate::{Auth, Error, Image, Progress, PullOptions, Result};

/// Chunks between the network and the disk.
const CHUNKS: usize = 16;
/// What a connection must bring for its end not to count as a failure.
const MIN_PROGRESS_BYTES: u64 = 64 << 10;
/// How often it is shown how far a blob has come that somebody else fetches.
const SHOWN: Duration = Duration::from_secs(1);

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

/// What a reference stands for at its registry.
struct Resolved {
    manifest: Manifest,
    digest: String,
    bytes: Vec<u8>,
    /// The digest the reference itself points to: an index's where it is one.
    top: String,
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
        let resolved = self.resolve().await?;
        let ingest = self.store.ingest()?;
        ingest.hold(self.store, resolved.blobs())?;
        self.blobs(&resolved.manifest).await?;
        self.finish(resolved, ingest).await
    }

    async fn resolve(&self) -> Result<Resolved> {
        let wanted = self.reference.digest.as_ref().or(self.reference.tag.as_ref());
        let wanted = wanted.ok_or_else(|| Error::Reference(self.reference.to_string()))?;
        let (bytes, top) = self.document(wanted, None).await?;
        let (digest, bytes) = match document::parse(&bytes, &top)? {
            Document::Manifest(manifest) => return Ok(Resolved { manifest, digest: top.clone(), bytes, top }),
            Document::Index(index) => {
                let platform = &self.options.platform;
                let missing = || Error::NotFound(format!("{} for {platform}", self.reference));
                let chosen = document::choose(&index, platform).ok_or_else(missing)?;
                (chosen.digest.clone(), self.document(&chosen.digest, Some(chosen.size)).await?.0)
            }
        };
        match document::parse(&bytes, &digest)? {
            Document::Manifest(manifest) => Ok(Resolved { manifest, digest, bytes, top }),
            Document::Index(_) => Err(malformed(&digest, "an index within an index")),
        }
    }

    /// A manifest or index from the first place that has it, and the digest of what really arrived.
    async fn document(&self, tag_or_digest: &str, size: Option<u64>) -> Result<(Vec<u8>, String)> {
        let name = self.reference.to_string();
        let mut failure = Error::NotFound(name.clone());
        for endpoint in &self.registry.endpoints {
            match endpoint.manifest(tag_or_digest, &name).await {
                Ok((bytes, digest)) => match size.filter(|size| *size != bytes.len() as u64) {
                    None => return Ok((bytes, digest)),
                    Some(size) => failure = malformed(&digest, format!("{} bytes; its index says {size}", bytes.len())),
                },
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn blobs(&self, manifest: &Manifest) -> Result<()> {
        let sizes = manifest.layers.iter().map(|layer| layer.size);
        let total_bytes = sizes.fold(0u64, u64::saturating_add);
        if total_bytes > self.options.max_unpacked_bytes || manifest.config.size > document::MAX_DOCUMENT_BYTES {
            return Err(malformed(
                &self.reference.to_string(),
                format!("layers[].size: {total_bytes} bytes are too many"),
            ));
        }
        (self.progress)(Progress::Resolved { layers: manifest.layers.len(), total_bytes });
        let mut seen = BTreeSet::new();
        let all = manifest.layers.iter().chain([&manifest.config]);
        let wanted: Vec<_> = all.filter(|d| seen.insert(d.digest.clone())).collect();
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

    /// Waits for something from the network, unless a blob has failed.
    async fn unless_stopped<T>(&self, what: impl Future<Output = Result<T>>) -> Result<T> {
        let mut stopped = self.stopped.subscribe();
        tokio::select! {
            result = what => result,
            _ = stopped.wait_for(|stopped| *stopped) => Err(Error::Transport("stopped".to_owned())),
        }
    }

    /// Brings a blob, or waits while another pull brings it.
    async fn blob(&self, wanted: &Descriptor) -> Result<()> {
        let dir = self.store.partials();
        loop {
            if *self.stopped.borrow() {
                return Err(Error::Transport("stopped".to_owned()));
            }
            if self.store.has_blob(&wanted.digest) {
                (self.progress)(Progress::Present { digest: wanted.digest.clone() });
                return Ok(());
            }
            let (of, digest, size) = (dir.clone(), wanted.digest.clone(), wanted.size);
            let claimed = match blocking(move || Partial::claim(&of, &digest, size)).await? {
                None => self.follow(&dir, wanted).await?,
                claimed => claimed,
            };
            match claimed {
                // Whoever had it before us may just have finished.
                Some(partial) if self.store.has_blob(&wanted.digest) => partial.discard(),
                Some(partial) => return self.bring(wanted, partial).await,
                None => {}
            }
        }
    }

    /// Waits while somebody else fetches a blob, and shows how far that has come.
    async fn follow(&self, dir: &Path, wanted: &Descriptor) -> Result<Option<Partial>> {
        let next = self.unless_stopped(Partial::claim_next(dir, &wanted.digest, wanted.size));
        let mut next = std::pin::pin!(next);
        loop {
            self.arrived(wanted, partial::arrived(dir, &wanted.digest));
            if let Ok(claimed) = tokio::time::timeout(SHOWN, &mut next).await {
                return claimed;
            }
        }
    }

    /// Asks each place for the blob. What is left of one that failed is gone on with at the next.
    async fn bring(&self, wanted: &Descriptor, mut partial: Partial) -> Result<()> {
        let mut failure = Error::NotFound(wanted.digest.clone());
        for endpoint in self.registry.endpoints.iter().take_while(|_| !*self.stopped.borrow()) {
            let result;
            (partial, result) = self.bring_from(endpoint, wanted, partial).await?;
            match result {
                Ok(()) => {
                    let blobs = self.store.blobs();
                    return blocking(move || partial.commit(&blobs)).await;
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn bring_from(
        &self,
        endpoint: &Endpoint,
        wanted: &Descriptor,
        mut partial: Partial,
    ) -> Result<(Partial, Result<()>)> {
        let (mut attempt, mut most) = (1, partial.bytes());
        loop {
            let found = partial.bytes();
            let result;
            (partial, result) = self.fetch(endpoint, wanted, partial).await?;
            let Err(error) = result else { return Ok((partial, Ok(()))) };
            if matches!(error, Error::Digest { .. }) {
                partial.restart()?;
                // What lay on the disk may be to blame, once.
                if found > 0 && attempt == 1 {
                    attempt = ATTEMPTS;
                    continue;
                }
                return Ok((partial, Err(error)));
            }
            // A stream that breaks but gets further each time is not asked a limited number of times.
            let moved = partial.bytes() >= most.saturating_add(MIN_PROGRESS_BYTES);
            most = most.max(partial.bytes());
            if !error.is_passing() || (attempt >= ATTEMPTS && !moved) || *self.stopped.borrow() {
                return Ok((partial, Err(error)));
            }
            attempt = if moved { 1 } else { attempt + 1 };
        }
    }

    /// Fetches what is missing of a blob and verifies all of it. The outer result is the disk's.
    async fn fetch(
        &self,
        endpoint: &Endpoint,
        wanted: &Descriptor,
        mut partial: Partial,
    ) -> Result<(Partial, Result<()>)> {
        if partial.bytes() < wanted.size {
            let arriving = match self.unless_stopped(endpoint.blob(wanted, partial.bytes())).await {
                Ok(arriving) => arriving,
                Err(error) => return Ok((partial, Err(error))),
            };
            if arriving.offset != partial.bytes() {
                partial.restart()?;
            }
            let (html, result) = (arriving.html, self.drain(wanted, arriving, partial).await?);
            partial = result.0;
            if let Err(error) = result.1 {
                return Ok((partial, Err(error)));
            }
            let verified = partial.verify();
            let page = || malformed(&wanted.digest, "the registry answers with an HTML page instead of the blob");
            return Ok((partial, if html { verified.map_err(|_| page()) } else { verified }));
        }
        let verified = partial.verify();
        Ok((partial, verified))
    }

    /// Moves a stream to the disk, which works on a thread of its own.
    async fn drain(
        &self,
        wanted: &Descriptor,
        mut arriving: Arriving,
        mut partial: Partial,
    ) -> Result<(Partial, Result<()>)> {
        let mut done = partial.bytes();
        let (sender, mut receiver) = mpsc::channel::<Bytes>(CHUNKS);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = receiver.blocking_recv() {
                if let Err(error) = partial.write(&chunk) {
                    // A full disk has no room for what may never be asked for again.
                    partial.discard();
                    return Err(error);
                }
            }
            Ok(partial)
        });
        let mut result = Ok(());
        loop {
            let next = self.unless_stopped(arriving.stream.next().map(Option::transpose));
            let chunk = match next.await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            done += chunk.len() as u64;
            if done > wanted.size {
                result =
                    Err(malformed(&wanted.digest, format!("longer than the {} bytes of its manifest", wanted.size)));
                break;
            }
            if sender.send(chunk).await.is_err() {
                break;
            }
            self.arrived(wanted, done);
        }
        drop(sender);
        let partial = writer.await.map_err(|e| Error::Transport(e.to_string()))??;
        if result.is_ok() && done < wanted.size {
            let size = wanted.size;
            result = Err(malformed(&wanted.digest, format!("ends after {done} of the {size} bytes of its manifest")));
        }
        Ok((partial, result))
    }

    fn arrived(&self, wanted: &Descriptor, done_bytes: u64) {
        (self.progress)(Progress::Fetched { digest: wanted.digest.clone(), done_bytes, total_bytes: wanted.size });
    }

    async fn finish(&self, resolved: Resolved, ingest: Ingest) -> Result<Image> {
        let (store, reference, max_bytes) =
            (self.store.clone(), self.reference.clone(), self.options.max_unpacked_bytes);
        // Every layer reports once, and a manifest has at most 500.
        let (sender, mut receiver) = mpsc::channel(512);
        let work = tokio::task::spawn_blocking(move || {
            store.put_blob(&ingest, &resolved.bytes)?;
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
            };
            store.record(&resolved.manifest.config.digest, record)
        });
        while let Some(digest) = receiver.recv().await {
            (self.progress)(Progress::Unpacked { digest });
        }
        work.await.map_err(|e| Error::Transport(e.to_string()))?
    }
}

impl Resolved {
    /// Every blob that the image will need.
    fn blobs(&self) -> Vec<&str> {
        let named = self.manifest.layers.iter().chain([&self.manifest.config]).map(|d| d.digest.as_str());
        named.chain([self.digest.as_str()]).collect()
    }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Transport(e.to_string()))?
}
