//! The objects of one resource and their recent changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use api::LabelSelector;
use bytes::Bytes;
use parking_lot::RwLock;
use store::{Entry, Event, Revision};
use tokio::sync::watch;

use super::index::Index;
use super::item::Item;
use super::signature::{Marks, Needed, Signature};
use crate::row::Strategy;

/// How many changes are kept for watchers; older ones come from the store.
const MAX_CHANGES: usize = 4096;
/// How many bytes of objects those may hold; at least [`MIN_CHANGES`] are kept.
const MAX_CHANGE_BYTES: usize = 16 << 20;
const MIN_CHANGES: usize = 100;

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    /// When.
    pub revision: Revision,
    /// The object after it; `None`: deleted.
    pub new: Option<Arc<Item>>,
    /// The object before it; `None`: created.
    pub old: Option<Arc<Item>>,
    /// The watch frames of those who see the change as it is, in JSON and in protobuf, made when first wanted.
    frames: [OnceLock<Bytes>; 2],
}

impl Change {
    /// The same change of other forms of the objects.
    pub(crate) fn with(&self, old: Option<Arc<Item>>, new: Option<Arc<Item>>) -> Self {
        Self { revision: self.revision, new, old, frames: [OnceLock::new(), OnceLock::new()] }
    }

    /// The watch frame of everyone who sees the change as it is, made by the first who wants it in that encoding.
    pub(crate) fn frame(&self, protobuf: bool, make: impl FnOnce() -> Bytes) -> Bytes {
        let [in_json, in_protobuf] = &self.frames;
        let frame = if protobuf { in_protobuf } else { in_json };
        frame.get_or_init(make).clone()
    }

    fn weight(&self) -> usize {
        self.new.as_ref().or(self.old.as_ref()).map_or(0, |item| item.bytes.len())
    }
}

/// What a change of the store means here; `None` where the value is no object. `before` is what stood there, where that
/// is known already.
pub(crate) fn change(event: &Event, strategy: &Strategy, before: Option<&Arc<Item>>) -> Option<(Bytes, Change)> {
    let read = |entry: &Entry| Item::of(entry, strategy).map(Arc::new);
    let old = |previous: &Option<Entry>| before.cloned().or_else(|| previous.as_ref().and_then(read));
    let (key, revision, new, old) = match event {
        Event::Put { entry, previous } => (&entry.key, entry.mod_revision, Some(read(entry)?), old(previous)),
        Event::Delete { key, revision, previous } => (key, *revision, None, Some(old(previous)?)),
    };
    Some((key.clone(), Change { revision, new, old, frames: [OnceLock::new(), OnceLock::new()] }))
}

/// One resource's cache.
pub(crate) struct Kind {
    /// What all its keys begin with.
    pub prefix: String,
    strategy: RwLock<Strategy>,
    state: RwLock<State>,
    changed: watch::Sender<Revision>,
}

/// An object, and beside it what most selectors need to know of it.
struct Slot {
    labels: Signature,
    item: Arc<Item>,
}

impl Slot {
    fn of(item: &Arc<Item>) -> Self {
        Self { labels: Signature::of(item), item: Arc::clone(item) }
    }
}

/// What a search has found.
pub(crate) struct Part {
    /// In order.
    pub items: Vec<Arc<Item>>,
    /// How many objects there are from where the search began, selected or not; 0 where the limit was not reached.
    pub count: usize,
    /// The revision of that state.
    pub applied: Revision,
}

#[derive(Default)]
struct State {
    items: BTreeMap<Bytes, Slot>,
    index: Index,
    labels: Marks,
    log: VecDeque<Arc<Change>>,
    log_bytes: usize,
    /// All changes after this revision are in the log.
    complete_after: Revision,
    /// The state is that of this revision or a later one without changes here.
    applied: Revision,
}

/// The changes a watcher asks for are no longer in memory.
#[derive(Debug)]
pub(crate) struct Gone;

impl Kind {
    /// A cache of what `entries` hold, read at `revision`.
    pub(crate) fn new(prefix: String, strategy: Strategy, entries: &[Entry], revision: Revision) -> Self {
        let read = |entry: &Entry| Some((entry.key.clone(), Arc::new(Item::of(entry, &strategy)?)));
        let items: BTreeMap<Bytes, Arc<Item>> = entries.iter().filter_map(read).collect();
        let index = Index::of(strategy.index_field(), items.values());
        let labels = Marks::of(items.values().map(|item| &**item));
        let items = items.into_iter().map(|(key, item)| (key, Slot::of(&item))).collect();
        let state = State { items, index, labels, complete_after: revision, applied: revision, ..State::default() };
        let (strategy, state) = (RwLock::new(strategy), RwLock::new(state));
        Self { prefix, strategy, state, changed: watch::Sender::new(revision) }
    }

    /// Takes over the events of a batch that are this resource's, all at once.
    pub(crate) fn apply(&self, events: &[Event], revision: Revision) {
        let strategy = self.strategy();
        let mut state = self.state.write();
        for event in events {
            state.apply(event, &strategy);
        }
        state.applied = revision;
        state.trim();
        drop(state);
        self.changed.send_replace(revision);
    }

    /// Replaces everything after a gap: watchers must start again from the store.
    pub(crate) fn replace(&self, entries: &[Entry], revision: Revision) {
        self.read_by(self.strategy(), entries, revision);
        self.changed.send_replace(revision);
    }

    /// Replaces everything by what other rules make of it. Watchers are told by the row that the rules belong to.
    pub(crate) fn read_by(&self, strategy: Strategy, entries: &[Entry], revision: Revision) {
        let fresh = Self::new(self.prefix.clone(), strategy, entries, revision);
        *self.strategy.write() = fresh.strategy.into_inner();
        *self.state.write() = fresh.state.into_inner();
    }

    /// One object.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<Item>> {
        self.state.read().items.get(key).map(|slot| Arc::clone(&slot.item))
    }

    /// The objects whose keys begin with `prefix`, in order, and the revision of that state.
    pub(crate) fn list(&self, prefix: &str) -> (Vec<Arc<Item>>, Revision) {
        let part = self.select(prefix, prefix, 0, &LabelSelector::everything(), |_| true);
        (part.items, part.applied)
    }

    /// The objects whose keys begin with `prefix`, from the key `start` on, that `labels` and `selects` both select; no
    /// more than `limit` of them (0: all).
    pub(crate) fn select(
        &self,
        prefix: &str,
        start: &str,
        limit: usize,
        labels: &LabelSelector,
        selects: impl Fn(&Item) -> bool,
    ) -> Part {
        let needed = Needed::by(labels);
        let state = self.state.read();
        if !needed.may_be_in(&state.labels) {
            return Part { items: Vec::new(), count: 0, applied: state.applied };
        }
        let from = Bytes::copy_from_slice(start.as_bytes());
        let end = store::prefix_end(prefix.as_bytes()).max(from.clone());
        let range = state.items.range(from.clone()..end.clone());
        let selected = range.filter(|(_, slot)| needed.may_be(slot.labels) && selects(&slot.item));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let items: Vec<_> = selected.take(limit).map(|(_, slot)| Arc::clone(&slot.item)).collect();
        let count = if items.len() < limit { 0 } else { state.items.range(from..end).count() };
        Part { items, count, applied: state.applied }
    }

    /// As [`Kind::list`], only objects whose `field` has that value; `None` where the kind has no index of it.
    pub(crate) fn find(&self, field: &str, value: &str, prefix: &str) -> Option<(Vec<Arc<Item>>, Revision)> {
        let state = self.state.read();
        Some((state.index.find(field, value, prefix)?, state.applied))
    }

    /// How many objects there are.
    pub(crate) fn count(&self) -> usize {
        self.state.read().items.len()
    }

    /// The changes after a revision, and the revision up to which these are all.
    pub(crate) fn since(&self, revision: Revision) -> Result<(Vec<Arc<Change>>, Revision), Gone> {
        let state = self.state.read();
        if revision < state.complete_after {
            return Err(Gone);
        }
        let first = state.log.partition_point(|change| change.revision <= revision);
        Ok((state.log.range(first..).cloned().collect(), state.applied.max(revision)))
    }

    /// Whether all changes after a revision are in memory.
    pub(crate) fn remembers(&self, revision: Revision) -> bool {
        revision >= self.state.read().complete_after
    }

    /// Tells the revision of the last change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// The revision of the last change.
    pub(crate) fn revision(&self) -> Revision {
        *self.changed.borrow()
    }

    /// What the kind's own rules are.
    pub(crate) fn strategy(&self) -> Strategy {
        self.strategy.read().clone()
    }
}

impl State {
    fn apply(&mut self, event: &Event, strategy: &Strategy) {
        let before = self.items.get(event.key()).map(|slot| Arc::clone(&slot.item));
        let Some((key, change)) = change(event, strategy, before.as_ref()) else { return };
        match &change.new {
            Some(item) => drop(self.items.insert(key, Slot::of(item))),
            None => drop(self.items.remove(&key)),
        }
        if let Some(item) = &before {
            self.index.remove(item);
            self.labels.remove(item);
        }
        if let Some(item) = &change.new {
            self.index.add(item);
            self.labels.add(item);
        }
        self.log_bytes += change.weight();
        self.log.push_back(Arc::new(change));
    }

    fn trim(&mut self) {
        while self.log.len() > MAX_CHANGES || (self.log_bytes > MAX_CHANGE_BYTES && self.log.len() > MIN_CHANGES) {
            let Some(gone) = self.log.pop_front() else { break };
            self.log_bytes -= gone.weight();
            self.complete_after = gone.revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_made_once_for_each_encoding_and_only_if_wanted() {
        let change = Change { revision: 1, new: None, old: None, frames: Default::default() };
        let mut made = Vec::new();
        for (protobuf, watchers) in [(false, 3), (true, 2)] {
            for _ in 0..watchers {
                let frame = change.frame(protobuf, || {
                    made.push(protobuf);
                    Bytes::from(format!("{protobuf}"))
                });
                assert_eq!(frame, format!("{protobuf}"));
            }
        }
        assert_eq!(made, [false, true]);
    }
}
