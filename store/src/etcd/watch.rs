//! A watch on etcd that outlives its connection: it goes on after the last revision delivered, without a gap.
//!
//! Fragments are not asked for: without them every answer holds whole revisions, and only our own limit on the size of
//! an answer would need them.

use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Event as EtcdEvent, EventType, WatchClient, WatchOptions, WatchResponse, WatchStream};
use futures::{StreamExt, stream};
use tokio::sync::watch as bell;

use super::entry;
use crate::{Batch, Error, Event, Revision, Watch};

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(3);
/// A member that lags behind answers a request for progress with an older revision; it is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Starts a watch. Where etcd's answers to requests for progress cannot be relied on, all keys are watched: then every
/// revision brings an event, and what was delivered is known without asking.
pub(super) fn start(
    client: WatchClient,
    prefix: Bytes,
    next: Revision,
    answers_progress: bool,
    wanted: bell::Receiver<Revision>,
) -> Watch {
    let retry = FIRST_RETRY;
    let told = next - 1;
    let watcher = Watcher { client, prefix, next, told, answers_progress, wanted, stream: None, retry, ended: false };
    stream::unfold(watcher, Watcher::step).boxed()
}

struct Watcher {
    client: WatchClient,
    prefix: Bytes,
    /// The first revision that was not seen yet.
    next: Revision,
    /// The revision of the last batch or progress that was delivered.
    told: Revision,
    answers_progress: bool,
    wanted: bell::Receiver<Revision>,
    stream: Option<WatchStream>,
    retry: Duration,
    ended: bool,
}

impl Watcher {
    async fn step(mut self) -> Option<(Result<Batch, Error>, Self)> {
        while !self.ended {
            if let Some(progress) = self.progress() {
                return Some((Ok(progress), self));
            }
            match self.receive().await {
                Ok(None) => {}
                Ok(Some(batch)) => return Some((Ok(batch), self)),
                Err(error) => return Some((Err(error), Self { ended: true, ..self })),
            }
        }
        None
    }

    /// The progress that was asked for, once everything up to there was seen.
    fn progress(&mut self) -> Option<Batch> {
        let wanted = *self.wanted.borrow();
        let seen = self.next - 1;
        if wanted <= self.told || seen < wanted {
            return None;
        }
        self.told = seen;
        Some(Batch { revision: seen, events: Vec::new() })
    }

    /// Waits for an answer or for a wish for progress.
    async fn receive(&mut self) -> Result<Option<Batch>, Error> {
        let asks = self.answers_progress && *self.wanted.borrow_and_update() > self.told;
        let Some(stream) = &mut self.stream else { return self.connect().await.map(|()| None) };
        // Should asking fail, so does the next message.
        let _ = if asks { stream.request_progress().await } else { Ok(()) };
        tokio::select! {
            message = stream.message() => match message {
                Ok(Some(response)) => self.take(&response),
                Ok(None) => self.lost("the stream ended").await,
                Err(error) => self.lost(&error.to_string()).await,
            },
            changed = self.wanted.changed() => match changed {
                Ok(()) => Ok(None),
                Err(_) => Err(Error::Unavailable("the store was closed".to_owned())),
            },
            () = tokio::time::sleep(ASK_AGAIN), if asks => Ok(None),
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let options = WatchOptions::new().with_start_revision(self.next as i64).with_prev_key();
        let connected = if self.answers_progress {
            self.client.watch(self.prefix.clone(), Some(options.with_prefix())).await
        } else {
            self.client.watch("", Some(options.with_all_keys())).await
        };
        match connected {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => {
                self.lost(&error.to_string()).await?;
            }
        }
        Ok(())
    }

    /// Waits a little longer each time before the next attempt.
    async fn lost(&mut self, why: &str) -> Result<Option<Batch>, Error> {
        tracing::debug!(why, next = self.next, "watch on etcd lost");
        self.stream = None;
        tokio::time::sleep(self.retry).await;
        self.retry = (self.retry * 2).min(LAST_RETRY);
        Ok(None)
    }

    fn take(&mut self, response: &WatchResponse) -> Result<Option<Batch>, Error> {
        if response.compact_revision() != 0 {
            return Err(Error::Compacted(response.compact_revision() as Revision));
        }
        if response.canceled() {
            tracing::debug!(why = response.cancel_reason(), "watch canceled by etcd");
            self.stream = None;
            return match response.cancel_reason() {
                why if why.contains("permission denied") => Err(Error::Unavailable(format!("etcd: {why}"))),
                _ => Ok(None),
            };
        }
        self.retry = FIRST_RETRY;
        match response.events().iter().filter_map(|e| e.kv()).map(|kv| kv.mod_revision()).max() {
            Some(last) => self.next = self.next.max(last as Revision + 1),
            // An answer without events is the progress of a watch that has nothing left to deliver.
            None if !response.created() && self.answers_progress => {
                self.next = self.next.max(super::revision_of(response.header()) + 1);
            }
            None => {}
        }
        let prefixed = |e: &&EtcdEvent| e.kv().is_some_and(|kv| kv.key().starts_with(&self.prefix));
        let events: Vec<Event> = response.events().iter().filter(prefixed).filter_map(event).collect();
        let Some(revision) = events.last().map(Event::revision) else { return Ok(None) };
        self.told = revision;
        Ok(Some(Batch { revision, events }))
    }
}

fn event(event: &EtcdEvent) -> Option<Event> {
    let now = entry(event.kv()?.clone());
    let previous = event.prev_kv().cloned().map(entry);
    Some(match event.event_type() {
        EventType::Put => Event::Put { entry: now, previous },
        EventType::Delete => Event::Delete { key: now.key, revision: now.mod_revision, previous },
    })
}

/// The oldest readable revision, by asking for the very first one.
pub(super) async fn compacted(mut client: WatchClient) -> Option<Revision> {
    let options = WatchOptions::new().with_start_revision(1);
    let mut stream = client.watch("/", Some(options)).await.ok()?;
    while let Ok(Some(response)) = stream.message().await {
        if response.canceled() {
            return Some(response.compact_revision() as Revision);
        }
    }
    None
}
