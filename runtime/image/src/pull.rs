//! Pull over HTTP(S): manifests by oci-client, blobs streamed, verified and resumed by us, layers in parallel.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, SizedStream};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as Target};
use tokio::sync::mpsc;

use crate::blob::{self, Incoming};
use crate::document::{self, Descriptor, Document, Manifest};
use crate::reference::Reference;
use crate::store::{Ingest, Record, Store};
use crate::{Auth, Error, Image, Progress, PullOptions, Result};

const ACCEPTED: [&str; 4] = [document::MANIFEST, document::INDEX, document::DOCKER_MANIFEST, document::DOCKER_INDEX];
/// How often a blob is asked for again when its stream breaks.
const ATTEMPTS: u32 = 3;
/// Chunks between the network and the disk.
const CHUNKS: usize = 16;

/// One pull under way.
struct Pull<'a, P> {
    store: &'a Store,
    client: Client,
    target: Target,
    reference: &'a Reference,
    auth: RegistryAuth,
    progress: P,
}

/// What a reference stands for at its registry.
struct Resolved {
    manifest: Manifest,
    digest: String,
    bytes: Bytes,
    /// The digest the reference itself points to: an index's where it is one.
    top: String,
}

impl Store {
    /// Fetches an image of this machine's platform from its registry. What is here already is not fetched again.
    pub async fn pull(
        &self,
        reference: &str,
        auth: &Auth,
        options: &PullOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Image> {
        let reference = Reference::parse(reference)?;
        let pull = Pull {
            store: self,
            client: Client::new(config(options)),
            target: target(&reference)?,
            reference: &reference,
            auth: registry_auth(auth),
            progress,
        };
        let resolved = pull.resolve().await?;
        let ingest = self.ingest()?;
        pull.blobs(&resolved.manifest, &ingest, options.parallel_layers.clamp(1, 16)).await?;
        pull.finish(resolved, ingest, options.max_unpacked_bytes).await
    }
}

impl<P: Fn(Progress) + Send + Sync> Pull<'_, P> {
    async fn resolve(&self) -> Result<Resolved> {
        let (bytes, top) = self.document(&self.target, self.reference.digest.as_deref()).await?;
        let (digest, bytes) = match document::parse(&bytes, &top)? {
            Document::Manifest(manifest) => return Ok(Resolved { manifest, digest: top.clone(), bytes, top }),
            Document::Index(index) => {
                let machine = document::architecture();
                let missing = || Error::NotFound(format!("{} for linux/{machine}", self.reference));
                let digest = document::choose(&index).ok_or_else(missing)?.digest.clone();
                let inner = self.target.clone_with_digest(digest.clone());
                (digest.clone(), self.document(&inner, Some(&digest)).await?.0)
            }
        };
        match document::parse(&bytes, &digest)? {
            Document::Manifest(manifest) => Ok(Resolved { manifest, digest, bytes, top }),
            Document::Index(_) => Err(document::malformed(&digest, "an index within an index")),
        }
    }

    /// A manifest or index, and the digest of what really arrived.
    async fn document(&self, target: &Target, expected: Option<&str>) -> Result<(Bytes, String)> {
        let answer = self.client.pull_manifest_raw(target, &self.auth, &ACCEPTED).await;
        let (bytes, _) = answer.map_err(|e| self.failed(e))?;
        let got = blob::digest(&bytes);
        match expected {
            Some(expected) if expected != got => Err(Error::Digest { digest: expected.to_owned(), got }),
            _ => Ok((bytes, got)),
        }
    }

    async fn blobs(&self, manifest: &Manifest, ingest: &Ingest, parallel: usize) -> Result<()> {
        let total_bytes = manifest.layers.iter().map(|d| d.size).sum();
        (self.progress)(Progress::Resolved { layers: manifest.layers.len(), total_bytes });
        let mut seen = BTreeSet::new();
        let all = manifest.layers.iter().chain([&manifest.config]);
        let wanted: Vec<_> = all.filter(|d| seen.insert(d.digest.clone()) && !self.store.has_blob(&d.digest)).collect();
        let fetches: Vec<_> = wanted.into_iter().map(|descriptor| self.blob(descriptor, ingest)).collect();
        stream::iter(fetches).buffer_unordered(parallel).try_collect().await
    }

    async fn blob(&self, descriptor: &Descriptor, ingest: &Ingest) -> Result<()> {
        let mut incoming = self.fresh(descriptor, ingest)?;
        for attempt in 1.. {
            let (back, result) = self.fetch(descriptor, ingest, incoming).await?;
            incoming = back;
            match result {
                Ok(()) => break,
                Err(error) if attempt >= ATTEMPTS => return Err(error),
                Err(_) => {}
            }
        }
        let (blobs, digest) = (self.store.blobs(), descriptor.digest.clone());
        blocking(move || incoming.commit(&blobs, Some(&digest))).await.map(|_| ())
    }

    fn fresh(&self, descriptor: &Descriptor, ingest: &Ingest) -> Result<Incoming> {
        Incoming::create(&ingest.path, blob::hex(&descriptor.digest)?)
    }

    /// Fetches what is missing of a blob. The inner result is the network's, worth another attempt.
    async fn fetch(
        &self,
        descriptor: &Descriptor,
        ingest: &Ingest,
        incoming: Incoming,
    ) -> Result<(Incoming, Result<()>)> {
        let mut incoming = incoming;
        let wanted = OciDescriptor {
            digest: descriptor.digest.clone(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let stream = match incoming.bytes() {
            0 => self.client.pull_blob_stream(&self.target, &wanted).await,
            offset => match self.client.pull_blob_stream_partial(&self.target, &wanted, offset, None).await {
                Ok(BlobResponse::Partial(stream)) => Ok(stream),
                Ok(BlobResponse::Full(stream)) => {
                    incoming = self.fresh(descriptor, ingest)?;
                    Ok(stream)
                }
                Err(e) => Err(e),
            },
        };
        match stream {
            Ok(stream) => self.drain(descriptor, stream, incoming).await,
            Err(e) => match self.failed(e) {
                error @ (Error::NotFound(_) | Error::Unauthorized(_)) => Err(error),
                error => Ok((incoming, Err(error))),
            },
        }
    }

    /// Moves a stream to the disk, which works on a thread of its own.
    async fn drain(
        &self,
        descriptor: &Descriptor,
        stream: SizedStream,
        mut incoming: Incoming,
    ) -> Result<(Incoming, Result<()>)> {
        let mut done = incoming.bytes();
        let (sender, mut receiver) = mpsc::channel::<Bytes>(CHUNKS);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = receiver.blocking_recv() {
                incoming.write(&chunk)?;
            }
            Ok::<_, Error>(incoming)
        });
        let mut result = Ok(());
        let mut stream: BoxStream<'_, _> = stream.stream;
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(e) => {
                    result = Err(Error::Transport(format!("{}: {e}", descriptor.digest)));
                    break;
                }
            };
            done += chunk.len() as u64;
            if done > descriptor.size {
                return Err(document::malformed(&descriptor.digest, "longer than its manifest says"));
            }
            if sender.send(chunk).await.is_err() {
                break;
            }
            let (digest, total_bytes) = (descriptor.digest.clone(), descriptor.size);
            (self.progress)(Progress::Fetched { digest, done_bytes: done, total_bytes });
        }
        drop(sender);
        let incoming = writer.await.map_err(|e| Error::Transport(e.to_string()))??;
        if result.is_ok() && done < descriptor.size {
            result = Err(Error::Transport(format!("{}: ended after {done} bytes", descriptor.digest)));
        }
        Ok((incoming, result))
    }

    async fn finish(&self, resolved: Resolved, ingest: Ingest, max_bytes: u64) -> Result<Image> {
        let (store, reference) = (self.store.clone(), self.reference.clone());
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

    fn failed(&self, error: OciDistributionError) -> Error {
        let name = self.reference.to_string();
        match &error {
            OciDistributionError::ImageManifestNotFoundError(_) => Error::NotFound(name),
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                Error::Unauthorized(name)
            }
            OciDistributionError::ServerError { code: 404, .. } => Error::NotFound(name),
            OciDistributionError::RegistryError { envelope, .. } => {
                let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|e| codes.contains(&e.code));
                if has(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::BlobUnknown]) {
                    Error::NotFound(name)
                } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    Error::Unauthorized(name)
                } else {
                    Error::Transport(format!("{name}: {error}"))
                }
            }
            _ => Error::Transport(format!("{name}: {}", chain(&error))),
        }
    }
}

fn config(options: &PullOptions) -> ClientConfig {
    ClientConfig {
        protocol: ClientProtocol::HttpsExcept(options.plain_http.clone()),
        connect_timeout: Some(std::time::Duration::from_secs(10)),
        read_timeout: Some(std::time::Duration::from_secs(60)),
        user_agent: concat!("trimtab/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    }
}

fn target(reference: &Reference) -> Result<Target> {
    let (registry, repository) = (reference.registry.clone(), reference.repository.clone());
    Ok(match (&reference.digest, &reference.tag) {
        (Some(digest), _) => Target::with_digest(registry, repository, digest.clone()),
        (None, Some(tag)) => Target::with_tag(registry, repository, tag.clone()),
        (None, None) => return Err(Error::Reference(reference.to_string())),
    })
}

fn registry_auth(auth: &Auth) -> RegistryAuth {
    match auth {
        Auth::Anonymous => RegistryAuth::Anonymous,
        Auth::Basic { username, password } => RegistryAuth::Basic(username.clone(), password.clone()),
        Auth::Bearer(token) => RegistryAuth::Bearer(token.clone()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Transport(e.to_string()))?
}

/// An error with its causes: reqwest hides the interesting one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
