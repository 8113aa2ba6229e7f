//! Keeping count of pods: per group and node, of what they say about each other, and per domain of a label.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::tally::Counter;
use super::{Domains, Row, Saying, Snapshot, Tally};
use crate::{Footprint, Group, NodeIndex, Wanted};

/// So many groups' counts are kept; the one not asked for longest goes first.
const MAX_COUNTERS: usize = 256;

impl Snapshot {
    /// Adds a pod to the counts of a node, or takes it out of them.
    pub(super) fn count_pod(&mut self, at: NodeIndex, footprint: &Footprint, sign: i64) {
        for counter in self.counters.values_mut().filter(|c| c.group.has(footprint, &self.namespaces)) {
            counter.tally.add(at, sign, &self.domains);
        }
        self.say(at, footprint, sign);
    }

    /// Nodes have other places, or other labels.
    pub(super) fn renumber(&mut self) {
        self.generation += 1;
        self.relabel();
    }

    pub(super) fn relabel(&mut self) {
        self.domains.clear();
        self.counters.values_mut().for_each(|counter| counter.tally.relabelled());
        self.sayings.values_mut().for_each(|saying| saying.tally.relabelled());
    }

    /// Adds what a pod says about being near others, or takes it away.
    pub(super) fn say(&mut self, at: NodeIndex, footprint: &Footprint, sign: i64) {
        for said in &footprint.near.said {
            let nodes = self.rows.len();
            let none = || Saying { said: said.clone(), tally: Tally::new(vec![0; nodes]) };
            let saying = self.sayings.entry(said.text.clone()).or_insert_with(none);
            saying.tally.add(at, sign, &self.domains);
            if saying.tally.total <= 0 {
                self.sayings.remove(&said.text);
            }
        }
    }

    /// Makes sure that what is counted for a pod is being kept.
    pub fn prepare(&mut self, pod: &Wanted) {
        let near = &pod.footprint.near;
        let spread = pod.spread.iter().filter_map(|s| Some((s.key.as_str(), s.group.as_ref()?)));
        let said = near.said.iter().map(|said| (said.label.as_str(), &said.about));
        let together = near.attracting.as_ref().map(|group| near.said.iter().map(move |s| (s.label.as_str(), group)));
        for (label, group) in spread.chain(said).chain(together.into_iter().flatten()) {
            self.keep(label, group);
        }
        for label in self.sayings.values().map(|s| s.said.label.clone()).collect::<BTreeSet<_>>() {
            self.keep_domains(&label);
        }
        for saying in self.sayings.values_mut() {
            if let Some(domains) = self.domains.get(&saying.said.label) {
                saying.tally.keep(&saying.said.label, domains);
            }
        }
    }

    fn keep_domains(&mut self, label: &str) {
        if !self.domains.contains_key(label) {
            let domains = self.domains(label);
            self.domains.insert(label.to_owned(), domains);
        }
    }

    fn keep(&mut self, label: &str, group: &Arc<Group>) {
        self.keep_domains(label);
        self.asked += 1;
        if !self.counters.contains_key(&group.text) {
            self.add_counter(group);
        }
        if let (Some(counter), Some(domains)) = (self.counters.get_mut(&group.text), self.domains.get(label)) {
            counter.asked = self.asked;
            counter.tally.keep(label, domains);
        }
    }

    fn add_counter(&mut self, group: &Arc<Group>) {
        if self.counters.len() >= MAX_COUNTERS
            && let Some(oldest) = self.counters.iter().min_by_key(|(_, c)| c.asked).map(|(text, _)| text.clone())
        {
            self.counters.remove(&oldest);
        }
        let counter = Counter { group: group.clone(), tally: self.count(group), asked: self.asked };
        self.counters.insert(group.text.clone(), counter);
    }

    fn count(&self, group: &Group) -> Tally {
        let on = |row: &Row| row.pods.values().filter(|p| group.has(p, &self.namespaces)).count() as i64;
        Tally::new(self.rows.iter().map(on).collect())
    }

    /// How many pods of a group there are.
    pub fn tally(&self, group: &Group) -> Cow<'_, Tally> {
        match self.counters.get(&group.text) {
            Some(counter) => Cow::Borrowed(&counter.tally),
            None => Cow::Owned(self.count(group)),
        }
    }

    /// The nodes by their value of a label.
    pub fn domains(&self, label: &str) -> Arc<Domains> {
        match self.domains.get(label) {
            Some(kept) => kept.clone(),
            None => Arc::new(Domains::new(self.rows.iter().map(|row| row.label(label)))),
        }
    }
}
