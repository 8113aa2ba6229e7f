//! The work queue of one decider: each key at most once, one decision of a key at a time, failures with backoff.
//! Pure; as long as there are objects, so bounded by them.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use jiff::SignedDuration;
use reconcile::{Key, Timestamp};

/// The first wait after a failure, and the longest.
const FIRST_MS: i64 = 5;
const MOST_MS: i64 = 1_000_000;
/// A change brings a failing key forward to this long from now, no nearer: what it managed to do before it failed
/// also shows up as a change.
const CALM_MS: i64 = 1_000;

/// Keys to decide, and when.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    /// Being decided and performed; true if something changed meanwhile.
    active: HashMap<Key, bool>,
    timers: BTreeSet<(Timestamp, Key)>,
    timer_of: HashMap<Key, Timestamp>,
    failures: HashMap<Key, u32>,
}

impl Queue {
    /// Something changed that a key depends on.
    pub(crate) fn add(&mut self, key: Key, now: Timestamp) {
        if self.queued.contains(&key) {
            return;
        }
        if let Some(changed) = self.active.get_mut(&key) {
            *changed = true;
            return;
        }
        let calm = now.saturating_add(SignedDuration::from_millis(CALM_MS)).unwrap_or(now);
        match self.timer_of.get(&key) {
            Some(at) if self.failures.contains_key(&key) => {
                let at = calm.min(*at);
                self.at(key, at);
            }
            _ => self.push(key),
        }
    }

    /// The next key to decide; it stays active until `done` or `failed`.
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<Key> {
        while let Some((at, key)) = self.timers.first().cloned()
            && at <= now
        {
            self.timers.remove(&(at, key.clone()));
            self.timer_of.remove(&key);
            match self.active.get_mut(&key) {
                Some(changed) => *changed = true,
                None => self.push(key),
            }
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.active.insert(key.clone(), false);
        Some(key)
    }

    /// When the next timer runs out.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A key was decided and its effects performed; `wake_at` decides it again then.
    pub(crate) fn done(&mut self, key: Key, wake_at: Option<Timestamp>) {
        self.failures.remove(&key);
        self.cancel(&key);
        match (self.active.remove(&key), wake_at) {
            (Some(true), _) => self.push(key),
            (_, Some(at)) => self.at(key, at),
            _ => {}
        }
    }

    /// A key's effects could not be performed: again after a wait that doubles each time.
    pub(crate) fn failed(&mut self, key: Key, now: Timestamp) {
        self.active.remove(&key);
        let count = self.failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        let wait = FIRST_MS.checked_shl(*count - 1).filter(|w| *count < 32 && *w < MOST_MS).unwrap_or(MOST_MS);
        let at = now.saturating_add(SignedDuration::from_millis(wait)).unwrap_or(now);
        self.at(key, at);
    }

    /// Nothing is ready, active or waiting for a failure to pass.
    #[cfg(test)]
    fn idle(&self) -> bool {
        self.ready.is_empty() && self.active.is_empty() && self.timers.is_empty()
    }

    fn push(&mut self, key: Key) {
        if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn at(&mut self, key: Key, at: Timestamp) {
        self.cancel(&key);
        self.timers.insert((at, key.clone()));
        self.timer_of.insert(key, at);
    }

    fn cancel(&mut self, key: &Key) {
        if let Some(at) = self.timer_of.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use k8s_openapi::api::core::v1::Pod;
    use reconcile::{Key, ObjectName, Timestamp};

    use super::Queue;

    fn key(name: &str) -> Key {
        Key::of::<Pod>(ObjectName { namespace: "ns".into(), name: name.into() })
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(ms)
    }

    #[test]
    fn a_key_is_decided_once_at_a_time_and_again_if_it_changed_meanwhile() {
        let mut queue = Queue::default();
        queue.add(key("a"), at(0));
        queue.add(key("a"), at(0));
        assert_eq!(queue.take(at(0)), Some(key("a")));
        queue.add(key("a"), at(0));
        assert_eq!(queue.take(at(0)), None);
        queue.done(key("a"), None);
        assert_eq!(queue.take(at(0)), Some(key("a")));
        queue.done(key("a"), None);
        assert!(queue.idle());
    }

    #[test]
    fn failures_wait_twice_as_long_and_a_change_does_not_make_them_hot() {
        let mut queue = Queue::default();
        queue.add(key("a"), at(0));
        let mut now = 0;
        for wait in [5, 10, 20, 40] {
            assert_eq!(queue.take(at(now)), Some(key("a")));
            queue.failed(key("a"), at(now));
            assert_eq!(queue.take(at(now + wait - 1)), None);
            now += wait;
        }
        for _ in 0..12 {
            let woken = queue.wake_at().unwrap();
            queue.take(woken);
            queue.failed(key("a"), at(0));
        }
        queue.add(key("a"), at(0));
        assert_eq!(queue.wake_at(), Some(at(1_000)));
        queue.take(at(1_000));
        queue.done(key("a"), Some(at(9_000)));
        assert_eq!(queue.wake_at(), Some(at(9_000)));
    }
}
