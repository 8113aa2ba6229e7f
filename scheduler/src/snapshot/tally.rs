//! Counts of pods per node and per domain of a label, kept as pods come and go.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::{Group, NodeIndex, Said};

/// The nodes by their value of one label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    /// For each node the number of its value, if it has the label.
    pub of: Vec<Option<usize>>,
    /// How many values there are.
    pub count: usize,
    /// How many nodes lack the label.
    pub unlabelled: usize,
}

/// Domains by label.
pub(super) type ByLabel = BTreeMap<String, Arc<Domains>>;

impl Domains {
    pub(super) fn new<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Self {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut domains = Self::default();
        for value in values {
            let next = numbers.len();
            let number = value.map(|value| *numbers.entry(value).or_insert(next));
            domains.unlabelled += usize::from(number.is_none());
            domains.of.push(number);
        }
        domains.count = numbers.len();
        domains
    }

    /// A node's domain.
    pub fn at(&self, node: NodeIndex) -> Option<usize> {
        self.of.get(node).copied().flatten()
    }
}

/// How many pods of a kind there are on each node, and in each domain of the labels that somebody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// On each node.
    pub per_node: Vec<i64>,
    /// On all nodes.
    pub total: i64,
    sums: BTreeMap<String, Vec<i64>>,
}

impl Tally {
    pub(super) fn new(per_node: Vec<i64>) -> Self {
        let total = per_node.iter().sum();
        Self { per_node, total, sums: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, node: NodeIndex, count: i64, domains: &ByLabel) {
        let Some(here) = self.per_node.get_mut(node) else { return };
        *here += count;
        self.total += count;
        for (label, sums) in &mut self.sums {
            let domain = domains.get(label).and_then(|d| d.at(node));
            if let Some(sum) = domain.and_then(|d| sums.get_mut(d)) {
                *sum += count;
            }
        }
    }

    pub(super) fn remove_node(&mut self, node: NodeIndex) {
        self.total -= self.per_node.swap_remove(node);
    }

    /// Keeps the sums per domain of a label from now on.
    pub(super) fn keep(&mut self, label: &str, domains: &Domains) {
        if !self.sums.contains_key(label) {
            let sums = self.summed(domains);
            self.sums.insert(label.to_owned(), sums);
        }
    }

    /// The nodes are others, or have other labels.
    pub(super) fn relabelled(&mut self) {
        self.sums.clear();
    }

    fn summed(&self, domains: &Domains) -> Vec<i64> {
        let mut sums = vec![0; domains.count];
        for (domain, count) in domains.of.iter().zip(&self.per_node).filter(|(_, count)| **count != 0) {
            if let Some(sum) = domain.and_then(|d| sums.get_mut(d)) {
                *sum += count;
            }
        }
        sums
    }

    /// How many there are in each domain of a label.
    pub fn by(&self, label: &str, domains: &Domains) -> Cow<'_, [i64]> {
        match self.sums.get(label) {
            Some(sums) => sums.into(),
            None => self.summed(domains).into(),
        }
    }
}

/// The pods of a group, counted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counter {
    pub(super) group: Arc<Group>,
    pub(super) tally: Tally,
    /// When it was last asked for.
    pub(super) asked: u64,
}

/// Pods that say the same about being near others, counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Saying {
    /// What they say.
    pub said: Arc<Said>,
    /// How many say it, and where.
    pub tally: Tally,
}
