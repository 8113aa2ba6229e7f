//! The watch cache: one watch over the whole prefix of the store feeds a cache per resource.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::RwLock;
use store::{Batch, Entry, Error, Event, Range, Revision, Store};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) mod index;
mod item;
pub(crate) mod kind;
mod signature;

use crate::row::Strategy;
pub(crate) use item::{Item, encode, encode_stored};
pub(crate) use kind::{Change, Kind};

/// All Kubernetes objects stand under this prefix.
pub(crate) const PREFIX: &str = "/registry/";
/// Entries read at once when a cache is filled.
const PAGE: usize = 1000;
/// After that long without news a reader asks the store for progress.
const PROGRESS_AFTER: Duration = Duration::from_millis(20);
/// A broken watch is tried again after this.
const RETRY_AFTER: Duration = Duration::from_millis(200);

type Kinds = BTreeMap<String, Arc<Kind>>;

/// The caches of all resources.
#[derive(Clone)]
pub(crate) struct Cache {
    store: Arc<dyn Store>,
    kinds: Arc<RwLock<Kinds>>,
    seen: watch::Sender<Revision>,
    commands: mpsc::Sender<Command>,
}

enum Command {
    Add { prefix: String, strategy: Strategy, done: oneshot::Sender<Result<(), Error>> },
}

impl Cache {
    /// Reads the whole prefix, fills a cache for each of `prefixes` and follows the store until `stop` is true.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        prefixes: Vec<(String, Strategy)>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        let (entries, revision) = read(store.as_ref(), PREFIX, 0).await?;
        let make = |(prefix, strategy): (String, Strategy)| {
            let kind = Kind::new(prefix.clone(), strategy, within(&entries, &prefix), revision);
            (prefix, Arc::new(kind))
        };
        let kinds = Arc::new(RwLock::new(prefixes.into_iter().map(make).collect()));
        let (commands, inbox) = mpsc::channel(16);
        let cache = Self { store, kinds, seen: watch::Sender::new(revision), commands };
        let mut follower = Follower { cache: cache.clone(), inbox };
        tokio::spawn(async move { follower.run(stop).await });
        Ok(cache)
    }

    /// Adds a resource's cache while running. What is there already is read anew, by these rules.
    pub(crate) async fn add(&self, prefix: String, strategy: Strategy) -> Result<(), Error> {
        let gone = || Error::Unavailable("the cache stopped".into());
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Add { prefix, strategy, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Drops a resource's cache.
    pub(crate) fn remove(&self, prefix: &str) {
        self.kinds.write().remove(prefix);
    }

    /// A resource's cache by its prefix.
    pub(crate) fn kind(&self, prefix: &str) -> Option<Arc<Kind>> {
        self.kinds.read().get(prefix).cloned()
    }

    /// The cache that a key belongs to.
    pub(crate) fn of_key(&self, key: &str) -> Option<Arc<Kind>> {
        of_key(&self.kinds.read(), key.as_bytes()).cloned()
    }

    /// All caches.
    pub(crate) fn kinds(&self) -> Vec<Arc<Kind>> {
        self.kinds.read().values().cloned().collect()
    }

    /// The revision up to which everything was applied.
    pub(crate) fn seen(&self) -> Revision {
        *self.seen.borrow()
    }

    /// Waits until the caches are at least as new as `revision`; false where that took too long.
    pub(crate) async fn wait(&self, revision: Revision, patience: Duration) -> bool {
        let mut seen = self.seen.subscribe();
        if *seen.borrow_and_update() >= revision {
            return true;
        }
        let arrive = async {
            while tokio::time::timeout(PROGRESS_AFTER, seen.wait_for(|at| *at >= revision)).await.is_err() {
                if let Err(error) = self.store.progress().await {
                    tracing::debug!(%error, "no progress from the store");
                }
            }
        };
        tokio::time::timeout(patience, arrive).await.is_ok()
    }

    /// Waits until the caches are as new as the store is now.
    pub(crate) async fn catch_up(&self, patience: Duration) -> Result<bool, Error> {
        let now = self.store.revision().await?;
        Ok(self.wait(now, patience).await)
    }

    /// The store under it.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}

struct Follower {
    cache: Cache,
    inbox: mpsc::Receiver<Command>,
}

impl Follower {
    async fn run(&mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                _ = stop.changed() => return,
                ended = self.follow() => tracing::warn!(error = %ended, "the watch on the store ended, starting again"),
            }
            tokio::select! {
                _ = stop.changed() => return,
                () = tokio::time::sleep(RETRY_AFTER) => {}
            }
        }
    }

    /// Applies batches until the watch ends.
    async fn follow(&mut self) -> Error {
        let from = self.cache.seen() + 1;
        let mut batches = match self.cache.store.watch(PREFIX.into(), from).await {
            Ok(batches) => batches,
            Err(Error::Compacted(_)) => return self.reload().await,
            Err(error) => return error,
        };
        loop {
            tokio::select! {
                batch = batches.next() => match batch {
                    Some(Ok(batch)) => self.apply(&batch),
                    Some(Err(Error::Compacted(_))) => return self.reload().await,
                    Some(Err(error)) => return error,
                    None => return Error::Unavailable("the watch ended".into()),
                },
                Some(command) = self.inbox.recv() => self.obey(command).await,
            }
        }
    }

    fn apply(&self, batch: &Batch) {
        for (kind, events) in by_kind(&self.cache.kinds.read(), &batch.events) {
            kind.apply(&events, batch.revision);
        }
        self.cache.seen.send_replace(batch.revision);
    }

    async fn obey(&self, command: Command) {
        let Command::Add { prefix, strategy, done } = command;
        let _ = done.send(self.fill(prefix, strategy).await);
    }

    /// Between two batches, so that the new cache and the follower agree on the revision.
    async fn fill(&self, prefix: String, strategy: Strategy) -> Result<(), Error> {
        let seen = self.cache.seen();
        let (entries, _) = read(self.cache.store.as_ref(), &prefix, seen).await?;
        match self.cache.kind(&prefix) {
            Some(kind) => kind.read_by(strategy, &entries, seen),
            None => {
                let kind = Arc::new(Kind::new(prefix.clone(), strategy, &entries, seen));
                self.cache.kinds.write().insert(prefix, kind);
            }
        }
        Ok(())
    }

    async fn reload(&self) -> Error {
        match read(self.cache.store.as_ref(), PREFIX, 0).await {
            Ok((entries, revision)) => {
                for kind in self.cache.kinds() {
                    kind.replace(within(&entries, &kind.prefix), revision);
                }
                self.cache.seen.send_replace(revision);
                Error::Compacted(revision)
            }
            Err(error) => error,
        }
    }
}

/// The events of each kind, in order.
fn by_kind(kinds: &Kinds, events: &[Event]) -> Vec<(Arc<Kind>, Vec<Event>)> {
    let mut found: Vec<(Arc<Kind>, Vec<Event>)> = Vec::new();
    for event in events {
        let key = match event {
            Event::Put { entry, .. } => &entry.key,
            Event::Delete { key, .. } => key,
        };
        let Some(kind) = of_key(kinds, key) else { continue };
        match found.iter_mut().find(|(known, _)| Arc::ptr_eq(known, kind)) {
            Some((_, events)) => events.push(event.clone()),
            None => found.push((Arc::clone(kind), vec![event.clone()])),
        }
    }
    found
}

/// The kind whose prefix a key begins with. No prefix is the beginning of another.
fn of_key<'a>(kinds: &'a Kinds, key: &[u8]) -> Option<&'a Arc<Kind>> {
    let key = std::str::from_utf8(key).ok()?;
    let (prefix, kind) = kinds.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
    key.starts_with(prefix.as_str()).then_some(kind)
}

/// The part of sorted entries whose keys begin with a prefix.
fn within<'a>(entries: &'a [Entry], prefix: &str) -> &'a [Entry] {
    let first = entries.partition_point(|entry| entry.key.as_ref() < prefix.as_bytes());
    let rest = entries.get(first..).unwrap_or_default();
    let count = rest.partition_point(|entry| entry.key.starts_with(prefix.as_bytes()));
    rest.get(..count).unwrap_or_default()
}

/// All entries under a prefix at one revision (0: the latest), and that revision.
async fn read(store: &dyn Store, prefix: &str, revision: Revision) -> Result<(Vec<Entry>, Revision), Error> {
    let mut range = Range { limit: PAGE, revision, ..Range::prefix(prefix.as_bytes().to_vec()) };
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let page = store.range(range.clone()).await?;
        range.revision = if range.revision == 0 { page.revision } else { range.revision };
        let full = page.entries.len() == PAGE;
        entries.extend(page.entries);
        match entries.last() {
            Some(last) if full => range.start = [last.key.as_ref(), &[0]].concat().into(),
            _ => return Ok((entries, range.revision)),
        }
    }
}
