//! The nodes in columns, and the pods placed on them; kept up to date change by change.
//!
//! Columns of numbers are what thousands of nodes are filtered by; a row holds what is looked at seldom. Counts of pods
//! per node, and per domain of a label, are kept once a pod that is to be placed has asked for them.

mod budget;
mod claim;
mod column;
mod counting;
mod nominated;
mod tally;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use api::ObjectName;
use k8s_openapi::api::core::v1::Taint;

pub use budget::Budget;
pub use claim::is_exclusive;
pub use column::Column;
pub use tally::{Domains, Saying, Tally};

use crate::local::Locals;
use crate::{Footprint, HostPort, Namespaces, Node, NodeIndex};
use tally::{ByLabel, Counter};

/// What of a node is not in columns.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    node: Arc<Node>,
    ports: Vec<HostPort>,
    pods: BTreeMap<String, Arc<Footprint>>,
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
    /// By the text of their group.
    counters: BTreeMap<Arc<str>, Counter>,
    /// By label; forgotten when nodes come, go or are labelled.
    domains: ByLabel,
    /// What placed pods say about being near others, by its text.
    sayings: BTreeMap<Arc<str>, Saying>,
    namespaces: Namespaces,
    budgets: BTreeMap<ObjectName, Budget>,
    /// The claims that one pod at a time may use.
    exclusive: BTreeSet<ObjectName>,
    /// How many placed pods use each claim.
    claimed: BTreeMap<ObjectName, usize>,
    /// Where pods that wait are expected to go, by their uid.
    nominated: BTreeMap<String, (Arc<str>, Arc<Footprint>)>,
    /// How many placed pods have each priority.
    priorities: BTreeMap<i32, usize>,
    /// How many nodes have each image.
    images: HashMap<Arc<str>, usize>,
    /// Whether each node is cordoned.
    pub unschedulable: Vec<bool>,
    /// Which of the different sets of taints each node has.
    pub taint_set: Vec<usize>,
    /// The different sets of taints; few, whatever the number of nodes.
    pub taint_sets: Vec<Vec<Taint>>,
    asked: u64,
    /// What is kept for each shape of pod.
    pub(crate) locals: Locals,
    /// Which nodes changed, the last so many of them.
    log: VecDeque<NodeIndex>,
    /// How many changes are no longer in the log.
    forgotten: u64,
    /// How often nodes came, went, or changed what others are judged by.
    generation: u64,
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

    /// Takes in a namespace's labels; nothing if it is gone. Says whether anything changed.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) -> bool {
        let changed = match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()) != Some(labels),
            None => self.namespaces.remove(name).is_some(),
        };
        if changed {
            // Terms may find pods by their namespace's labels.
            self.counters.clear();
        }
        changed
    }

    /// The labels of namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// How many nodes have an image.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// The lowest priority of any placed pod.
    pub fn lowest_priority(&self) -> Option<i32> {
        self.priorities.keys().next().copied()
    }

    /// A node's place in the columns.
    pub fn index_of(&self, name: &str) -> Option<NodeIndex> {
        self.index.get(name).copied()
    }

    /// Counts up whenever nodes come, go, or change what others are judged by.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// How many changes of nodes there have been.
    pub(crate) fn changes(&self) -> u64 {
        self.forgotten + self.log.len() as u64
    }

    /// The nodes that changed since there had been so many changes; nothing if that is too long ago.
    pub(crate) fn changed_since(&self, changes: u64) -> Option<impl Iterator<Item = NodeIndex>> {
        let known = usize::try_from(changes.checked_sub(self.forgotten)?).ok()?;
        Some(self.log.iter().skip(known).copied())
    }

    fn touch(&mut self, at: NodeIndex) {
        self.log.push_back(at);
        if self.log.len() > 2 * self.rows.len() + 64 {
            self.log.pop_front();
            self.forgotten += 1;
        }
    }

    fn count_images(&mut self, node: &Node, more: bool) {
        for (image, _) in &node.images {
            let count = self.images.entry(image.clone()).or_default();
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.images.remove(image);
            }
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
        self.renumber();
        self.count_images(&node, true);
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
        self.sayings.values_mut().for_each(|saying| saying.tally.per_node.push(0));
        self.index.insert(name.clone(), at);
        let others = node.allocatable.others.clone();
        self.rows.push(Row { node: Arc::new(node), ports: Vec::new(), pods: BTreeMap::new() });
        others.iter().for_each(|(resource, amount)| self.other(resource).resize(at, *amount));
        self.counters.values_mut().for_each(|counter| counter.tally.per_node.push(0));
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
        self.touch(at);
        let was = self.rows.get(at)?.node.clone();
        if was.labels != node.labels {
            self.relabel();
        }
        if was.images != node.images {
            self.generation += 1;
            self.count_images(&was, false);
            self.count_images(&node, true);
        }
        let row = self.rows.get_mut(at)?;
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
        self.unschedulable.swap_remove(at);
        self.taint_set.swap_remove(at);
        for footprint in self.pods_on(at).cloned().collect::<Vec<_>>() {
            self.say(at, &footprint, -1);
        }
        self.counters.values_mut().for_each(|counter| counter.tally.remove_node(at));
        self.sayings.values_mut().for_each(|saying| saying.tally.remove_node(at));
        self.renumber();
        let row = self.rows.swap_remove(at);
        self.count_images(&row.node, false);
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
        *self.priorities.entry(footprint.priority).or_default() += 1;
        self.claim(&footprint);
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
        self.unclaim(&footprint);
        if let Some(count) = self.priorities.get_mut(&footprint.priority) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.priorities.remove(&footprint.priority);
            }
        }
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
        self.count_pod(at, footprint, sign);
        self.touch(at);
    }
}

impl Row {
    fn label(&self, label: &str) -> Option<&str> {
        self.node.labels.get(label).map(String::as_str)
    }
}
