//! One blob: from whoever has it, gone on with where somebody left it, verified, and committed.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::StreamExt;
use tokio::sync::mpsc;

use super::{Pull, blocking};
use crate::document::{Descriptor, malformed};
use crate::partial::{self, Partial};
use crate::registry::{ATTEMPTS, Arriving, Endpoint};
use crate::{Error, Progress, Result};

/// Chunks between the network and the disk.
const CHUNKS: usize = 16;
/// What a connection must bring for its end not to count as a failure.
const MIN_PROGRESS_BYTES: u64 = 64 << 10;
/// How often it is shown how far a blob has come that somebody else fetches.
const SHOWN: Duration = Duration::from_secs(1);

impl<P: Fn(Progress) + Send + Sync> Pull<'_, P> {
    /// Brings a blob, or waits while another pull brings it.
    pub(super) async fn blob(&self, wanted: &Descriptor) -> Result<()> {
        let dir = self.store.partials();
        loop {
            if *self.stopped.borrow() {
                return Err(Error::Transport("stopped".to_owned()));
            }
            if let Some(bytes) = self.store.blob_bytes(&wanted.digest) {
                (self.progress)(Progress::Present { digest: wanted.digest.clone() });
                let wrong = || malformed(&wanted.digest, format!("{bytes} bytes; its manifest says {}", wanted.size));
                return if bytes == wanted.size { Ok(()) } else { Err(wrong()) };
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

    /// Waits for something from the network, unless a blob has failed.
    async fn unless_stopped<T>(&self, what: impl Future<Output = Result<T>>) -> Result<T> {
        let mut stopped = self.stopped.subscribe();
        tokio::select! {
            result = what => result,
            _ = stopped.wait_for(|stopped| *stopped) => Err(Error::Transport("stopped".to_owned())),
        }
    }
}
