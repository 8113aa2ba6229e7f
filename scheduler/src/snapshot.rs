//! The nodes in columns, and the pods placed on them; kept up to date change by change.
//!
//! Columns of numbers are what thousands of nodes are filtered by; a row holds what is looked at seldom. Counts of pods
//! per node and selector are kept once a topology spread constraint has asked for them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PodAffinityTerm, Taint};
use reconcile::selector;

use crate::{Counts, Footprint, HostPort, Node, NodeIndex, Wanted};

/// So many selectors' counts are kept; the one not asked for longest goes first.
const MAX_COUNTERS: usize = 256;

/// One resource of all nodes.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// What each node has for pods.
    pub allocatable: Vec<i64>,
    /// What of it is not requested; below zero if pods were placed past the scheduler.
    pub free: Vec<i64>,
}

impl Column {
    fn push(&mut self, amount: i64) {
        self.allocatable.push(amount);
        self.free.push(amount);
    }

    fn swap_remove(&mut self, node: NodeIndex) {
        self.allocatable.swap_remove(node);
        self.free.swap_remove(node);
    }

    fn take(&mut self, node: NodeIndex, amount: i64) {
        if let Some(free) = self.free.get_mut(node) {
            *free -= amount;
        }
    }

    fn resize(&mut self, node: NodeIndex, amount: i64) {
        if let (Some(allocatable), Some(free)) = (self.allocatable.get_mut(node), self.free.get_mut(node)) {
            *free += amount - *allocatable;
            *allocatable = amount;
        }
    }

    /// What a node has.
    pub fn allocatable(&self, node: NodeIndex) -> i64 {
        self.allocatable.get(node).copied().unwrap_or(0)
    }

    /// What a node has left.
    pub fn free(&self, node: NodeIndex) -> i64 {
        self.free.get(node).copied().unwrap_or(0)
    }

    /// What of a node is requested.
    pub fn used(&self, node: NodeIndex) -> i64 {
        self.allocatable(node) - self.free(node)
    }
}

/// What of a node is not in columns.
#[derive(Clone, Debug)]
struct Row {
    node: Arc<Node>,
    ports: Vec<HostPort>,
    pods: BTreeMap<String, Arc<Footprint>>,
}

/// The nodes by their value of one label.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    /// For each node the number of its value, if it has the label.
    pub of: Vec<Option<usize>>,
    /// How many values there are.
    pub count: usize,
}

/// Pods that say the same about being near others, per node.
#[derive(Clone, Debug)]
pub struct Saying {
    /// Their namespace.
    pub namespace: String,
    /// What they say.
    pub term: PodAffinityTerm,
    /// How much it matters.
    pub force: Force,
    /// How many say it on each node.
    pub per_node: Vec<i64>,
    total: i64,
}

/// How much an affinity term matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Force {
    /// Required affinity.
    Attracts,
    /// Required anti-affinity.
    Repels,
    /// A preference with its weight.
    Prefers(i64),
}

/// How many pods of a namespace that are counted together each node has.
#[derive(Clone, Debug)]
struct Counter {
    namespace: String,
    counts: Counts,
    per_node: Vec<i64>,
    asked: u64,
}

/// All nodes and what is placed on them.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    rows: Vec<Row>,
    index: HashMap<Arc<str>, NodeIndex>,
    /// Cpu in thousandths.
    pub cpu: Column,
    /// Memory in bytes.
    pub memory: Column,
    /// Ephemeral storage in bytes.
    pub storage: Column,
    /// Pods that may run.
    pub pods: Column,
    /// Resources by other names; a node without one has none of it.
    pub others: BTreeMap<String, Column>,
    /// Cpu and memory in use as scores count them.
    pub scored_cpu: Vec<i64>,
    /// The same for memory.
    pub scored_memory: Vec<i64>,
    /// Where each pod is, also on nodes that are not known (yet).
    placed: HashMap<String, (Arc<str>, Arc<Footprint>)>,
    waiting: HashMap<Arc<str>, BTreeSet<String>>,
    counters: Vec<Counter>,
    /// By label; forgotten when nodes come, go or are labelled.
    domains: BTreeMap<String, Arc<Domains>>,
    /// What placed pods say about being near others, by its text.
    sayings: BTreeMap<String, Saying>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether each node is cordoned.
    pub unschedulable: Vec<bool>,
    /// Which of the different sets of taints each node has.
    pub taint_set: Vec<usize>,
    /// The different sets of taints; few, whatever the number of nodes.
    pub taint_sets: Vec<Vec<Taint>>,
    asked: u64,
}

impl Snapshot {
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A node.
    pub fn node(&self, node: NodeIndex) -> Option<&Node> {
        self.rows.get(node).map(|row| &*row.node)
    }

    /// A node by its name.
    pub fn named(&self, name: &str) -> Option<&Arc<Node>> {
        self.rows.get(*self.index.get(name)?).map(|row| &row.node)
    }

    /// A node's label.
    pub fn label(&self, node: NodeIndex, key: &str) -> Option<&str> {
        self.node(node)?.labels.get(key).map(String::as_str)
    }

    /// Evaluates something once for each set of taints, and tells it by node.
    pub fn by_taints<T: Copy>(&self, of: impl Fn(&[Taint]) -> T) -> impl Fn(NodeIndex) -> Option<T> {
        let sets: Vec<T> = self.taint_sets.iter().map(|set| of(set)).collect();
        move |node| self.taint_set.get(node).and_then(|set| sets.get(*set)).copied()
    }

    fn taint_number(&mut self, taints: &[Taint]) -> usize {
        let bare: Vec<Taint> = taints.iter().map(|t| Taint { time_added: None, ..t.clone() }).collect();
        if let Some(known) = self.taint_sets.iter().position(|set| *set == bare) {
            return known;
        }
        self.taint_sets.push(bare);
        self.taint_sets.len() - 1
    }

    /// Forgets sets of taints that no node has any more.
    fn tidy_taints(&mut self) {
        if self.taint_sets.len() > 2 * self.rows.len() + 16 {
            self.taint_sets.clear();
            let taints: Vec<Arc<Node>> = self.rows.iter().map(|row| row.node.clone()).collect();
            self.taint_set = taints.iter().map(|node| self.taint_number(&node.taints)).collect();
        }
    }

    /// The ports of a node that are taken.
    pub fn ports(&self, node: NodeIndex) -> &[HostPort] {
        self.rows.get(node).map_or(&[], |row| &row.ports)
    }

    /// The pods on a node.
    pub fn pods_on(&self, node: NodeIndex) -> impl Iterator<Item = &Arc<Footprint>> {
        self.rows.get(node).into_iter().flat_map(|row| row.pods.values())
    }

    /// What placed pods say about being near others.
    pub fn sayings(&self) -> impl Iterator<Item = &Saying> {
        self.sayings.values()
    }

    /// Takes in a namespace's labels; nothing if it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        let changed = match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()) != Some(labels),
            None => self.namespaces.remove(name).is_some(),
        };
        if changed {
            // Terms may find pods by their namespace's labels.
            self.counters.retain(|c| !matches!(c.counts, Counts::Term(_)));
        }
    }

    /// Where a pod is placed.
    pub fn place_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(|(node, _)| &**node)
    }

    /// What a placed pod takes up.
    pub fn footprint(&self, uid: &str) -> Option<&Arc<Footprint>> {
        self.placed.get(uid).map(|(_, footprint)| footprint)
    }

    /// Adds a node or takes in its change; returns what it was before.
    pub fn set_node(&mut self, node: Node) -> Option<Arc<Node>> {
        match self.index.get(&node.name).copied() {
            Some(at) => self.change_node(at, node),
            None => {
                self.add_node(node);
                None
            }
        }
    }

    fn add_node(&mut self, node: Node) {
        let (at, name) = (self.rows.len(), node.name.clone());
        self.domains.clear();
        self.cpu.push(node.allocatable.cpu_milli);
        self.memory.push(node.allocatable.memory_bytes);
        self.storage.push(node.allocatable.storage_bytes);
        self.pods.push(node.pods);
        self.others.values_mut().for_each(|column| column.push(0));
        self.scored_cpu.push(0);
        self.scored_memory.push(0);
        self.unschedulable.push(node.unschedulable);
        let taints = self.taint_number(&node.taints);
        self.taint_set.push(taints);
        self.sayings.values_mut().for_each(|saying| saying.per_node.push(0));
        self.index.insert(name.clone(), at);
        let others = node.allocatable.others.clone();
        self.rows.push(Row { node: Arc::new(node), ports: Vec::new(), pods: BTreeMap::new() });
        others.iter().for_each(|(resource, amount)| self.other(resource).resize(at, *amount));
        self.counters.iter_mut().for_each(|counter| counter.per_node.push(0));
        for uid in self.waiting.remove(&name).into_iter().flatten() {
            if let Some((_, footprint)) = self.placed.get(&uid) {
                self.occupy(at, &footprint.clone());
            }
        }
    }

    fn other(&mut self, resource: &str) -> &mut Column {
        let nodes = self.rows.len();
        let column = self.others.entry(resource.to_owned()).or_default();
        column.allocatable.resize(nodes, 0);
        column.free.resize(nodes, 0);
        column
    }

    fn change_node(&mut self, at: NodeIndex, node: Node) -> Option<Arc<Node>> {
        self.cpu.resize(at, node.allocatable.cpu_milli);
        self.memory.resize(at, node.allocatable.memory_bytes);
        self.storage.resize(at, node.allocatable.storage_bytes);
        self.pods.resize(at, node.pods);
        let gone = self.others.iter_mut().filter(|(name, _)| !node.allocatable.others.contains_key(*name));
        gone.for_each(|(_, column)| column.resize(at, 0));
        for (resource, amount) in &node.allocatable.others {
            self.other(resource).resize(at, *amount);
        }
        let taints = self.taint_number(&node.taints);
        if let (Some(set), Some(closed)) = (self.taint_set.get_mut(at), self.unschedulable.get_mut(at)) {
            (*set, *closed) = (taints, node.unschedulable);
        }
        self.tidy_taints();
        let row = self.rows.get_mut(at)?;
        if row.node.labels != node.labels {
            self.domains.clear();
        }
        Some(std::mem::replace(&mut row.node, Arc::new(node)))
    }

    /// Removes a node; its pods are remembered until they are said to be gone.
    pub fn remove_node(&mut self, name: &str) {
        let Some((name, at)) = self.index.remove_entry(name) else { return };
        [&mut self.cpu, &mut self.memory, &mut self.storage, &mut self.pods]
            .into_iter()
            .chain(self.others.values_mut())
            .for_each(|column| column.swap_remove(at));
        self.scored_cpu.swap_remove(at);
        self.scored_memory.swap_remove(at);
        self.counters.iter_mut().for_each(|counter| {
            counter.per_node.swap_remove(at);
        });
        self.domains.clear();
        for footprint in self.pods_on(at).cloned().collect::<Vec<_>>() {
            self.say(at, &footprint, -1);
        }
        self.sayings.values_mut().for_each(|saying| {
            saying.per_node.swap_remove(at);
        });
        self.unschedulable.swap_remove(at);
        self.taint_set.swap_remove(at);
        let row = self.rows.swap_remove(at);
        if let Some(moved) = self.rows.get(at) {
            self.index.insert(moved.node.name.clone(), at);
        }
        self.waiting.entry(name).or_default().extend(row.pods.into_keys());
    }

    /// Places a pod, or takes in that it changed or moved.
    pub fn place(&mut self, node: &str, footprint: Arc<Footprint>) {
        self.displace(&footprint.uid);
        let at = self.index.get_key_value(node).map(|(name, at)| (name.clone(), *at));
        let name = at.as_ref().map_or_else(|| node.into(), |(name, _)| name.clone());
        self.placed.insert(footprint.uid.clone(), (name.clone(), footprint.clone()));
        match at {
            Some((_, at)) => self.occupy(at, &footprint),
            None => {
                self.waiting.entry(name).or_default().insert(footprint.uid.clone());
            }
        }
    }

    /// Takes a pod away; returns what it took up.
    pub fn displace(&mut self, uid: &str) -> Option<Arc<Footprint>> {
        let (node, footprint) = self.placed.remove(uid)?;
        match self.index.get(&node).copied() {
            Some(at) => self.leave(at, uid),
            None => {
                if let Some(waiting) = self.waiting.get_mut(&node) {
                    waiting.remove(uid);
                    if waiting.is_empty() {
                        self.waiting.remove(&node);
                    }
                }
            }
        }
        Some(footprint)
    }

    fn occupy(&mut self, at: NodeIndex, footprint: &Arc<Footprint>) {
        self.weigh(at, footprint, 1);
        if let Some(row) = self.rows.get_mut(at) {
            row.ports.extend(footprint.ports.iter().cloned());
            row.pods.insert(footprint.uid.clone(), footprint.clone());
        }
    }

    fn leave(&mut self, at: NodeIndex, uid: &str) {
        let Some(footprint) = self.rows.get_mut(at).and_then(|row| row.pods.remove(uid)) else { return };
        self.weigh(at, &footprint, -1);
        if let Some(row) = self.rows.get_mut(at)
            && !footprint.ports.is_empty()
        {
            row.ports = row.pods.values().flat_map(|p| p.ports.iter().cloned()).collect();
        }
    }

    /// Adds a pod to all sums of a node, or takes it out of them.
    fn weigh(&mut self, at: NodeIndex, footprint: &Footprint, sign: i64) {
        let requested = &footprint.requested;
        self.cpu.take(at, sign * requested.cpu_milli);
        self.memory.take(at, sign * requested.memory_bytes);
        self.storage.take(at, sign * requested.storage_bytes);
        self.pods.take(at, sign);
        for (resource, amount) in &requested.others {
            self.other(resource).take(at, sign * amount);
        }
        let sums = [
            (&mut self.scored_cpu, footprint.scored_cpu_milli),
            (&mut self.scored_memory, footprint.scored_memory_bytes),
        ];
        for (column, amount) in sums {
            if let Some(sum) = column.get_mut(at) {
                *sum += sign * amount;
            }
        }
        for counter in &mut self.counters {
            if let Some(count) = counter.per_node.get_mut(at)
                && counted(footprint, &counter.namespace, &counter.counts, &self.namespaces)
            {
                *count += sign;
            }
        }
        self.say(at, footprint, sign);
    }

    /// Adds what a pod says about being near others, or takes it away.
    fn say(&mut self, at: NodeIndex, footprint: &Footprint, sign: i64) {
        let near = &footprint.near;
        let attracts = near.attracted.iter().map(|term| (term, Force::Attracts));
        let repels = near.repelled.iter().map(|term| (term, Force::Repels));
        let prefers = near.preferred().map(|(term, weight)| (term, Force::Prefers(weight)));
        for (term, force) in attracts.chain(repels).chain(prefers) {
            let text = format!("{force:?} {} {term:?}", footprint.namespace);
            let nodes = self.rows.len();
            let saying = self.sayings.entry(text.clone()).or_insert_with(|| Saying {
                namespace: footprint.namespace.clone(),
                term: term.clone(),
                force,
                per_node: vec![0; nodes],
                total: 0,
            });
            saying.total += sign;
            if let Some(count) = saying.per_node.get_mut(at) {
                *count += sign;
            }
            if saying.total <= 0 {
                self.sayings.remove(&text);
            }
        }
    }

    /// Makes sure that what is counted for a pod is being kept.
    pub fn prepare(&mut self, pod: &Wanted) {
        let near = &pod.footprint.near;
        let keys = pod.spread.iter().map(|s| &s.key).chain(near.terms().map(|t| &t.topology_key));
        for key in keys {
            if !self.domains.contains_key(key) {
                let domains = self.domains(key);
                self.domains.insert(key.clone(), domains);
            }
        }
        for counts in pod.spread.iter().filter_map(|s| s.counts.as_ref()) {
            self.keep(&pod.footprint.namespace, counts);
        }
        for term in near.terms() {
            self.keep(&pod.footprint.namespace, &Counts::Term(Box::new(term.clone())));
        }
    }

    fn keep(&mut self, namespace: &str, counts: &Counts) {
        self.asked += 1;
        match self.counters.iter_mut().find(|c| c.namespace == *namespace && c.counts == *counts) {
            Some(counter) => counter.asked = self.asked,
            None => self.add_counter(namespace, counts),
        }
    }

    fn add_counter(&mut self, namespace: &str, counts: &Counts) {
        if self.counters.len() >= MAX_COUNTERS
            && let Some(oldest) = (0..self.counters.len()).min_by_key(|i| self.counters.get(*i).map(|c| c.asked))
        {
            self.counters.swap_remove(oldest);
        }
        let per_node = self.count(namespace, counts);
        let (namespace, counts) = (namespace.to_owned(), counts.clone());
        self.counters.push(Counter { namespace, counts, per_node, asked: self.asked });
    }

    fn count(&self, namespace: &str, counts: &Counts) -> Vec<i64> {
        let on =
            |row: &Row| row.pods.values().filter(|p| counted(p, namespace, counts, &self.namespaces)).count() as i64;
        self.rows.iter().map(on).collect()
    }

    /// How many pods of a namespace are counted together, per node.
    pub fn matching(&self, namespace: &str, counts: &Counts) -> Cow<'_, [i64]> {
        match self.counters.iter().find(|c| c.namespace == namespace && c.counts == *counts) {
            Some(counter) => (&counter.per_node).into(),
            None => self.count(namespace, counts).into(),
        }
    }

    /// The nodes by their value of a label.
    pub fn domains(&self, key: &str) -> Arc<Domains> {
        if let Some(kept) = self.domains.get(key) {
            return kept.clone();
        }
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let number = |row| {
            let row: &Row = row;
            let value = row.node.labels.get(key)?;
            let next = numbers.len();
            Some(*numbers.entry(value).or_insert(next))
        };
        let of = self.rows.iter().map(number).collect();
        Arc::new(Domains { of, count: numbers.len() })
    }
}

type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// Whether a pod is counted. For spreading, one that is being deleted makes room already, and an empty selector is none.
fn counted(pod: &Footprint, namespace: &str, counts: &Counts, namespaces: &Namespaces) -> bool {
    let spreads = !pod.terminating && pod.namespace == namespace;
    match counts {
        Counts::Labels(labels) => {
            spreads && !selector::is_empty(labels) && selector::matches(labels, Some(&pod.labels))
        }
        Counts::Owner(uid) => spreads && pod.owner.as_ref() == Some(uid),
        Counts::Term(term) => is_about(term, namespace, pod, namespaces),
    }
}

/// Whether an affinity term of a pod in `namespace` is about another pod: its namespaces are those it names and those
/// its selector finds, or its own if it says nothing.
fn is_about(term: &PodAffinityTerm, namespace: &str, pod: &Footprint, namespaces: &Namespaces) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    let there = named.contains(&pod.namespace)
        || match &term.namespace_selector {
            None => named.is_empty() && pod.namespace == namespace,
            Some(found) => selector::is_empty(found) || selector::matches(found, namespaces.get(&pod.namespace)),
        };
    there && term.label_selector.as_ref().is_some_and(|s| selector::matches(s, Some(&pod.labels)))
}

impl Snapshot {
    /// Whether an affinity term of a pod in `namespace` is about another pod.
    pub fn is_about(&self, term: &PodAffinityTerm, namespace: &str, pod: &Footprint) -> bool {
        is_about(term, namespace, pod, &self.namespaces)
    }
}
