//! The pods that wait to be placed: ready ones by priority, those that back off, and those that fit nowhere until
//! something changes. Bounded by the number of pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{ObjectName, Timestamp};
use jiff::SignedDuration;

use crate::plugins::Plugins;
use crate::{Event, Wanted};

const FIRST_BACKOFF: SignedDuration = SignedDuration::from_secs(1);
const LAST_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// A pod that nothing has woken is tried again after this long all the same.
const MAX_PARKED: SignedDuration = SignedDuration::from_mins(5);

/// A pod in the queue.
#[derive(Debug)]
struct Item {
    pod: Arc<Wanted>,
    /// Since when it waits; it keeps its place in line through failures.
    since: Timestamp,
    attempts: u32,
    place: Place,
}

/// Where in the queue a pod is.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    Ready,
    /// Until then. An error of the API server is waited out in full; other pods may go earlier when none is ready.
    Backoff {
        until: Timestamp,
        error: bool,
    },
    /// Fits nowhere: the plugins that refused it, when it was tried, and when its backoff ends.
    Parked {
        plugins: Vec<&'static str>,
        at: Timestamp,
        until: Timestamp,
    },
    /// It has scheduling gates, or its placement is under way.
    Held,
}

/// The order of ready pods: priority, then age.
type Rank = (std::cmp::Reverse<i32>, Timestamp, ObjectName);

#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: HashMap<ObjectName, Item>,
    ready: BTreeSet<Rank>,
    backoff: BTreeSet<(Timestamp, ObjectName)>,
    /// By when they are tried again whatever happens.
    parked: BTreeSet<(Timestamp, ObjectName)>,
    /// By the plugins that refused them; under no name those for which there was no node.
    refused: BTreeMap<&'static str, BTreeSet<ObjectName>>,
}

/// Under which names a parked pod is found.
fn refusers(plugins: &[&'static str]) -> impl Iterator<Item = &'static str> {
    plugins.iter().copied().chain(plugins.is_empty().then_some(""))
}

fn rank(item: &Item) -> Rank {
    (std::cmp::Reverse(item.pod.footprint.priority), item.since, item.pod.name.clone())
}

fn backoff(attempts: u32) -> SignedDuration {
    let doubled = FIRST_BACKOFF.checked_mul(1 << attempts.saturating_sub(1).min(8)).unwrap_or(LAST_BACKOFF);
    doubled.min(LAST_BACKOFF)
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

impl Queue {
    /// Takes in a pod, or that it changed; a changed pod may fit now.
    pub(crate) fn set(&mut self, pod: Arc<Wanted>, now: Timestamp) {
        let name = pod.name.clone();
        match self.items.get(&name) {
            Some(item) if item.pod == pod && !matches!(item.place, Place::Held) => {}
            Some(item) if item.pod.footprint.uid == pod.footprint.uid => self.change(pod, now),
            _ => self.add(pod, now),
        }
    }

    fn add(&mut self, pod: Arc<Wanted>, now: Timestamp) {
        let name = pod.name.clone();
        self.remove(&name);
        let place = if pod.gated { Place::Held } else { Place::Ready };
        let item = Item { since: pod.created.unwrap_or(now), pod, attempts: 0, place: Place::Held };
        self.items.insert(name.clone(), item);
        self.put(&name, place);
    }

    /// A pod that changed waits out its backoff unless it is ready already. One under way stays so.
    fn change(&mut self, pod: Arc<Wanted>, now: Timestamp) {
        let name = pod.name.clone();
        let Some(item) = self.items.get_mut(&name) else { return };
        let (was_gated, place) = (item.pod.gated, item.place.clone());
        self.put(&name, Place::Held);
        let Some(item) = self.items.get_mut(&name) else { return };
        let gated = pod.gated;
        item.pod = pod;
        let place = match place {
            _ if gated => Place::Held,
            Place::Held if was_gated => Place::Ready,
            Place::Parked { until, .. } if until <= now => Place::Ready,
            Place::Parked { until, .. } => Place::Backoff { until, error: false },
            other => other,
        };
        self.put(&name, place);
    }

    /// Moves a pod to another place.
    fn put(&mut self, name: &ObjectName, place: Place) {
        let Some(item) = self.items.get_mut(name) else { return };
        match &item.place {
            Place::Ready => {
                self.ready.remove(&rank(item));
            }
            Place::Backoff { until, .. } => {
                self.backoff.remove(&(*until, name.clone()));
            }
            Place::Parked { plugins, at, .. } => {
                self.parked.remove(&(later(*at, MAX_PARKED), name.clone()));
                for plugin in refusers(plugins) {
                    self.refused.entry(plugin).or_default().remove(name);
                }
            }
            Place::Held => {}
        }
        item.place = place;
        match &item.place {
            Place::Ready => {
                self.ready.insert(rank(item));
            }
            Place::Backoff { until, .. } => {
                self.backoff.insert((*until, name.clone()));
            }
            Place::Parked { plugins, at, .. } => {
                self.parked.insert((later(*at, MAX_PARKED), name.clone()));
                for plugin in refusers(plugins) {
                    self.refused.entry(plugin).or_default().insert(name.clone());
                }
            }
            Place::Held => {}
        }
    }

    /// The pod is placed or gone.
    pub(crate) fn remove(&mut self, name: &ObjectName) {
        self.put(name, Place::Held);
        self.items.remove(name);
    }

    /// The next pod to place; it is held until it is parked, retried or removed.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<Arc<Wanted>> {
        self.flush(now);
        let name = match self.ready.first() {
            Some((_, _, name)) => name.clone(),
            None => self.early()?,
        };
        self.put(&name, Place::Held);
        let item = self.items.get_mut(&name)?;
        item.attempts += 1;
        Some(item.pod.clone())
    }

    /// A pod that backs off though nothing is wrong with it: why wait when there is nothing else to do.
    fn early(&self) -> Option<ObjectName> {
        let calm = |name: &&ObjectName| {
            self.items.get(*name).is_some_and(|i| matches!(i.place, Place::Backoff { error: false, .. }))
        };
        self.backoff.iter().map(|(_, name)| name).find(calm).cloned()
    }

    fn flush(&mut self, now: Timestamp) {
        while let Some((until, name)) = self.backoff.first().cloned()
            && until <= now
        {
            self.put(&name, Place::Ready);
        }
        while let Some((until, name)) = self.parked.first().cloned()
            && until <= now
        {
            self.put(&name, Place::Ready);
        }
    }

    /// The pod fits nowhere because these plugins refused it.
    pub(crate) fn park(&mut self, name: &ObjectName, plugins: Vec<&'static str>, now: Timestamp) {
        let until = later(now, backoff(self.attempts(name)));
        self.put(name, Place::Parked { plugins, at: now, until });
    }

    /// The pod's turn comes whatever it waits for.
    pub(crate) fn activate(&mut self, name: &ObjectName) {
        if self.items.get(name).is_some_and(|item| !matches!(item.place, Place::Held)) {
            self.put(name, Place::Ready);
        }
    }

    /// Placing the pod failed: again after a while.
    pub(crate) fn retry(&mut self, name: &ObjectName, now: Timestamp) {
        let until = later(now, backoff(self.attempts(name)));
        self.put(name, Place::Backoff { until, error: true });
    }

    fn attempts(&self, name: &ObjectName) -> u32 {
        self.items.get(name).map_or(1, |item| item.attempts)
    }

    /// The pod of that name as it waits.
    pub(crate) fn get(&self, name: &ObjectName) -> Option<&Arc<Wanted>> {
        self.items.get(name).map(|item| &item.pod)
    }

    /// Wakes the pods that an event may help: a plugin that refused them says so. Pods for which there was no node at
    /// all wait for any node.
    pub(crate) fn wake(&mut self, event: &Event<'_>, plugins: &Plugins, now: Timestamp) {
        let parked = |plugin: &'static str| self.refused.get(plugin).into_iter().flatten();
        let mut names: BTreeSet<ObjectName> = BTreeSet::new();
        for plugin in plugins.iter().filter(|plugin| plugin.heeds(event)) {
            let helped = |n: &&ObjectName| self.items.get(*n).is_some_and(|i| plugin.wakes_on(&i.pod, event));
            names.extend(parked(plugin.name()).filter(helped).cloned());
        }
        if matches!(event, Event::Node { .. }) {
            names.extend(parked("").cloned());
        }
        for name in names {
            let Some(Place::Parked { until, .. }) = self.items.get(&name).map(|i| i.place.clone()) else { continue };
            let place = if until <= now { Place::Ready } else { Place::Backoff { until, error: false } };
            self.put(&name, place);
        }
    }

    /// When a pod becomes ready though nothing happens. Nothing if one is ready now or none will be.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        let backoff = self.backoff.first().map(|(until, _)| *until);
        let parked = self.parked.first().map(|(until, _)| *until);
        [backoff, parked].into_iter().flatten().min()
    }
}
