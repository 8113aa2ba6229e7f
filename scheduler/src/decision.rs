//! One placement: filter, score, choose, or else make room; a value that says why.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::candidates::Refusals;
use crate::local::{self, Local};
use crate::plugins::Scope;
use crate::preemption::{self, Preemption};
use crate::{Candidates, NodeIndex, Plugins, Snapshot, Wanted};

/// What was decided for a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// How it ended.
    pub verdict: Verdict,
    /// How many nodes there were.
    pub nodes: usize,
    /// The nodes that were refused, and why.
    pub refused: Refusals,
}

/// How a decision ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The pod goes there.
    Place(Placement),
    /// It fits nowhere now.
    Unschedulable {
        /// What `kubectl describe` shows.
        message: String,
        /// What is done about it.
        preemption: Preemption,
    },
}

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node's name.
    pub node: Arc<str>,
    /// The sum of its weighted scores; scores that are the same for all nodes are left out.
    pub score: i64,
    /// How many nodes had that score; the seed chose among them.
    pub equals: usize,
}

/// Decides where `pod` goes. The same arguments give the same decision, so this is the dry run too: what it tries on
/// the snapshot it takes back.
pub fn schedule(pod: &Wanted, snapshot: &mut Snapshot, plugins: &Plugins, seed: u64) -> Decision {
    snapshot.prepare(pod);
    let local = Local::take(pod, snapshot, plugins);
    let (open, mut refused) = local.candidates();
    let (open, others) = local::filter(pod, snapshot, plugins, Scope::Cluster, Candidates::new(open)).split();
    let (nodes, tables) = others.into_parts();
    refused.extend(nodes.into_iter(), &tables);
    let open = yield_to_nominated(pod, snapshot, plugins, open, &mut refused);
    let placement = place(pod, snapshot, plugins, &local, &open, seed);
    local.give_back(pod, snapshot);
    let verdict = match placement {
        Some(placement) => Verdict::Place(placement),
        None => unschedulable(pod, snapshot, plugins, &refused, seed),
    };
    Decision { verdict, nodes: snapshot.len(), refused }
}

/// Refuses the nodes that would not have room for the pod if those were there already that have others preempted.
fn yield_to_nominated(
    pod: &Wanted,
    snapshot: &mut Snapshot,
    plugins: &Plugins,
    mut open: Vec<NodeIndex>,
    refused: &mut Refusals,
) -> Vec<NodeIndex> {
    for (node, ahead) in snapshot.ahead_of(&pod.footprint) {
        let Ok(at) = open.binary_search(&node) else { continue };
        let (fits, others) = snapshot.with(node, &ahead, |snapshot| fits(pod, snapshot, plugins, node));
        if !fits {
            open.remove(at);
            let (nodes, tables) = others.into_parts();
            refused.extend(nodes.into_iter(), &tables);
        }
    }
    open
}

/// Whether a pod fits on one node as the snapshot has it, and why not.
pub(crate) fn fits(pod: &Wanted, snapshot: &Snapshot, plugins: &Plugins, node: NodeIndex) -> (bool, Refusals) {
    let nodes = local::filter(pod, snapshot, plugins, Scope::Node, Candidates::new(vec![node]));
    let nodes =
        if nodes.open().is_empty() { nodes } else { local::filter(pod, snapshot, plugins, Scope::Cluster, nodes) };
    let (open, refused) = nodes.split();
    (!open.is_empty(), refused)
}

fn place(
    pod: &Wanted,
    snapshot: &Snapshot,
    plugins: &Plugins,
    local: &Local,
    open: &[NodeIndex],
    seed: u64,
) -> Option<Placement> {
    let expected = snapshot.nomination(&pod.footprint.uid).and_then(|name| snapshot.index_of(name));
    if let Some(node) = expected.filter(|node| open.binary_search(node).is_ok()) {
        return Some(Placement { node: snapshot.node(node)?.name.clone(), score: 0, equals: 1 });
    }
    let scores = if open.len() > 1 { total(pod, snapshot, plugins, local, open) } else { vec![0; open.len()] };
    let score = *scores.iter().max()?;
    let equals = scores.iter().filter(|s| **s == score).count();
    let nth = (seed % equals.max(1) as u64) as usize;
    let (chosen, _) = open.iter().zip(&scores).filter(|(_, s)| **s == score).nth(nth)?;
    Some(Placement { node: snapshot.node(*chosen)?.name.clone(), score, equals })
}

fn total(pod: &Wanted, snapshot: &Snapshot, plugins: &Plugins, local: &Local, nodes: &[NodeIndex]) -> Vec<i64> {
    let mut total = local.total(plugins, nodes);
    let mut scores = vec![0; nodes.len()];
    for (_, plugin) in local::scoring(plugins, Scope::Cluster) {
        scores.fill(0);
        if plugin.score(pod, snapshot, nodes, &mut scores) {
            total.iter_mut().zip(&scores).for_each(|(sum, score)| *sum += plugin.weight() * score);
        }
    }
    total
}

/// Upstream's sentence (`FitError.Error`), with what preemption adds to it.
fn unschedulable(pod: &Wanted, snapshot: &mut Snapshot, plugins: &Plugins, refused: &Refusals, seed: u64) -> Verdict {
    if snapshot.is_empty() {
        let message = "no nodes available to schedule pods".to_owned();
        return Verdict::Unschedulable { message, preemption: Preemption::Hopeless };
    }
    let nodes = snapshot.len();
    let why = match plugins.iter().any(|plugin| plugin.narrow(pod).is_some_and(|names| names.is_empty())) {
        true => format!("0/{nodes} nodes are available: pod affinity terms conflict."),
        false => histogram(nodes, refused.texts()),
    };
    let (preemption, told) = preemption::preempt(pod, snapshot, plugins, refused, seed);
    Verdict::Unschedulable { message: format!("{why} preemption: {told}"), preemption }
}

/// How many nodes gave each reason.
pub(crate) fn histogram(nodes: usize, reasons: BTreeMap<&str, usize>) -> String {
    let mut parts: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}
