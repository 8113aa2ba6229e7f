//! What the plugins that look at one node alone say about every node, kept per shape of pod.
//!
//! Pods come in workloads: the next one asks what the last one asked, and only the nodes that changed since then have
//! to be looked at again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::candidates::{Tables, Why};
use crate::plugins::Scope;
use crate::{Candidates, NodeIndex, Plugins, Reason, Snapshot, Wanted};

/// So many shapes are kept; the one not asked for longest goes first.
const MAX_LOCALS: usize = 32;

/// The verdicts of each shape of pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locals {
    kept: HashMap<Arc<str>, Local>,
    asked: u64,
}

/// What is said about every node for pods of one shape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Local {
    whys: Vec<Why>,
    tables: Tables,
    /// The sum of the weighted scores that are not normalized.
    sums: Vec<i64>,
    /// The other scores as they are, by the plugin's number; nothing where all are zero.
    raw: HashMap<usize, Vec<i64>>,
    generation: u64,
    changes: u64,
    asked: u64,
}

impl Local {
    /// The verdicts for a pod as of now, taken out of the snapshot.
    pub(crate) fn take(pod: &Wanted, snapshot: &mut Snapshot, plugins: &Plugins) -> Self {
        let mut local = snapshot.locals.kept.remove(&pod.shape).unwrap_or_default();
        local.update(pod, snapshot, plugins);
        snapshot.locals.asked += 1;
        local.asked = snapshot.locals.asked;
        local
    }

    /// Puts the verdicts back for the next pod of this shape.
    pub(crate) fn give_back(self, pod: &Wanted, snapshot: &mut Snapshot) {
        let kept = &mut snapshot.locals.kept;
        if kept.len() >= MAX_LOCALS
            && let Some(oldest) = kept.iter().min_by_key(|(_, local)| local.asked).map(|(shape, _)| shape.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(pod.shape.clone(), self);
    }

    fn update(&mut self, pod: &Wanted, snapshot: &Snapshot, plugins: &Plugins) {
        let same = self.generation == snapshot.generation() && self.whys.len() == snapshot.len();
        let changed = snapshot.changed_since(self.changes).filter(|_| same && !self.whys.is_empty());
        let nodes: Vec<NodeIndex> = match changed {
            Some(changed) => changed.collect::<BTreeSet<_>>().into_iter().collect(),
            None => {
                *self = Self { whys: vec![Why::default(); snapshot.len()], ..Self::default() };
                self.sums = vec![0; snapshot.len()];
                (0..snapshot.len()).collect()
            }
        };
        (self.generation, self.changes) = (snapshot.generation(), snapshot.changes());
        if !nodes.is_empty() {
            self.filter(pod, snapshot, plugins, &nodes);
            self.score(pod, snapshot, plugins, &nodes);
        }
    }

    fn filter(&mut self, pod: &Wanted, snapshot: &Snapshot, plugins: &Plugins, nodes: &[NodeIndex]) {
        for node in nodes {
            set(&mut self.whys, *node, Why::default());
        }
        let refused = filter(pod, snapshot, plugins, Scope::Node, Candidates::new(nodes.to_vec())).split().1;
        let (refused, tables) = refused.into_parts();
        for (node, why) in refused {
            set(&mut self.whys, node, why);
        }
        self.tables.extend(tables);
    }

    fn score(&mut self, pod: &Wanted, snapshot: &Snapshot, plugins: &Plugins, nodes: &[NodeIndex]) {
        for node in nodes {
            set(&mut self.sums, *node, 0);
        }
        let mut scores = vec![0; nodes.len()];
        for (number, plugin) in scoring(plugins, Scope::Node) {
            scores.fill(0);
            let says = plugin.score(pod, snapshot, nodes, &mut scores);
            if plugin.normalize().is_none() {
                for (node, score) in nodes.iter().zip(&scores) {
                    if let Some(sum) = self.sums.get_mut(*node) {
                        *sum += plugin.weight() * score;
                    }
                }
            } else if says || self.raw.contains_key(&number) {
                let raw = self.raw.entry(number).or_insert_with(|| vec![0; snapshot.len()]);
                nodes.iter().zip(&scores).for_each(|(node, score)| set(raw, *node, *score));
            }
        }
    }

    /// The nodes that fit, and why the others do not.
    pub(crate) fn candidates(&self) -> (Vec<NodeIndex>, crate::candidates::Refusals) {
        let mut open = Vec::with_capacity(self.whys.len());
        let mut refused = Vec::new();
        for (node, why) in self.whys.iter().enumerate() {
            if why.is_open() { open.push(node) } else { refused.push((node, *why)) }
        }
        let mut refusals = crate::candidates::Refusals::default();
        refusals.extend(refused.into_iter(), &self.tables);
        (open, refusals)
    }

    /// The sum of the weighted scores of some nodes.
    pub(crate) fn total(&self, plugins: &Plugins, nodes: &[NodeIndex]) -> Vec<i64> {
        let of = |column: &[i64]| nodes.iter().map(|n| column.get(*n).copied().unwrap_or(0)).collect::<Vec<i64>>();
        let mut total = of(&self.sums);
        for (number, plugin) in scoring(plugins, Scope::Node) {
            let Some(normalize) = plugin.normalize() else { continue };
            let Some(raw) = self.raw.get(&number) else { continue };
            let mut scores = of(raw);
            normalize(&mut scores);
            total.iter_mut().zip(&scores).for_each(|(sum, score)| *sum += plugin.weight() * score);
        }
        total
    }
}

fn set<T>(column: &mut [T], node: NodeIndex, value: T) {
    if let Some(place) = column.get_mut(node) {
        *place = value;
    }
}

/// The plugins of a scope that give scores, with their numbers.
pub(crate) fn scoring(plugins: &Plugins, scope: Scope) -> impl Iterator<Item = (usize, &'static dyn crate::Plugin)> {
    let scores = move |p: &&'static dyn crate::Plugin| p.scope() == scope && p.weight() != 0;
    plugins.iter().copied().enumerate().filter(move |(_, plugin)| scores(plugin))
}

/// Asks the plugins of a scope, each about the nodes that those before it left.
pub(crate) fn filter(
    pod: &Wanted,
    snapshot: &Snapshot,
    plugins: &Plugins,
    scope: Scope,
    mut nodes: Candidates,
) -> Candidates {
    let asked = || plugins.iter().enumerate().filter(|(_, plugin)| plugin.scope() == scope);
    for (number, plugin) in asked() {
        if let Some(names) = plugin.narrow(pod) {
            let name = plugin.name();
            nodes.asked(plugins.len() + number, name);
            let reason =
                Reason { text: format!("node(s) didn't satisfy plugin(s) [{name}]").into(), unresolvable: true };
            nodes.refuse(&reason, |at| snapshot.node(at).is_none_or(|node| !names.contains(&*node.name)));
        }
    }
    for (number, plugin) in asked() {
        if nodes.open().is_empty() {
            break;
        }
        nodes.asked(number, plugin.name());
        plugin.filter(pod, snapshot, &mut nodes);
    }
    nodes
}
