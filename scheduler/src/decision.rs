//! One placement: filter, score, choose; a value that says why.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Candidates, NodeIndex, Plugins, Reason, Refusal, Snapshot, Wanted};

/// What was decided for a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// How it ended.
    pub verdict: Verdict,
    /// How many nodes there were.
    pub nodes: usize,
    /// The nodes that were refused, by name, and why.
    pub refused: Vec<(Arc<str>, Refusal)>,
}

/// How a decision ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The pod goes there.
    Place(Placement),
    /// It fits nowhere; what `kubectl describe` shows.
    Unschedulable(String),
}

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node's name.
    pub node: Arc<str>,
    /// The sum of its weighted scores.
    pub score: i64,
    /// How many nodes had that score; the seed chose among them.
    pub equals: usize,
}

/// Decides where `pod` goes. The same arguments give the same decision; nothing is changed, so this is the dry run too.
pub fn schedule(pod: &Wanted, snapshot: &Snapshot, plugins: &Plugins, seed: u64) -> Decision {
    let mut candidates = Candidates::all(snapshot.len());
    for plugin in plugins.iter() {
        if candidates.open().is_empty() {
            break;
        }
        candidates.asked(plugin.name());
        plugin.filter(pod, snapshot, &mut candidates);
    }
    let place = best(pod, snapshot, plugins, candidates.open(), seed);
    let refused = candidates.refused();
    let verdict = match place {
        Some(placement) => Verdict::Place(placement),
        None => Verdict::Unschedulable(explain(pod, snapshot, &refused)),
    };
    let named = |refusal: Refusal| Some((snapshot.node(refusal.node)?.name.clone(), refusal));
    Decision { verdict, nodes: snapshot.len(), refused: refused.into_iter().filter_map(named).collect() }
}

fn best(pod: &Wanted, snapshot: &Snapshot, plugins: &Plugins, nodes: &[NodeIndex], seed: u64) -> Option<Placement> {
    let scores = if nodes.len() > 1 { total(pod, snapshot, plugins, nodes) } else { vec![0; nodes.len()] };
    let score = *scores.iter().max()?;
    let ties: Vec<NodeIndex> = nodes.iter().zip(&scores).filter(|(_, s)| **s == score).map(|(node, _)| *node).collect();
    let chosen = ties.get((seed % ties.len().max(1) as u64) as usize)?;
    Some(Placement { node: snapshot.node(*chosen)?.name.clone(), score, equals: ties.len() })
}

fn total(pod: &Wanted, snapshot: &Snapshot, plugins: &Plugins, nodes: &[NodeIndex]) -> Vec<i64> {
    let mut total = vec![0; nodes.len()];
    let mut scores = vec![0; nodes.len()];
    for plugin in plugins.iter().filter(|p| p.weight() != 0) {
        scores.fill(0);
        if plugin.score(pod, snapshot, nodes, &mut scores) {
            total.iter_mut().zip(&scores).for_each(|(sum, score)| *sum += plugin.weight() * score);
        }
    }
    total
}

/// Upstream's sentence (`FitError.Error` and what preemption adds to it).
fn explain(pod: &Wanted, snapshot: &Snapshot, refused: &[Refusal]) -> String {
    if snapshot.is_empty() {
        return "no nodes available to schedule pods".to_owned();
    }
    let reasons = refused.iter().flat_map(|r| &r.reasons).map(|r| r.text.as_ref());
    let why = histogram(snapshot.len(), reasons);
    format!("{why} preemption: {}", preemption(pod, snapshot, refused))
}

fn histogram<'a>(nodes: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason).or_default() += 1);
    let mut parts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

/// Whether removing pods of lower priority could help; nobody does that yet.
fn preemption(pod: &Wanted, snapshot: &Snapshot, refused: &[Refusal]) -> String {
    if pod.never_preempts {
        return "not eligible due to preemptionPolicy=Never.".to_owned();
    }
    let priority = pod.footprint.priority;
    let victims = |r: &Refusal| snapshot.pods_on(r.node).any(|p| p.priority < priority);
    let hopeless = |r: &Refusal| r.reasons.iter().any(|reason: &Reason| reason.unresolvable);
    if refused.iter().any(|r| !hopeless(r) && victims(r)) {
        return "not supported.".to_owned();
    }
    let reasons = refused.iter().map(|r| match hopeless(r) {
        true => "Preemption is not helpful for scheduling",
        false => "No preemption victims found for incoming pod",
    });
    histogram(snapshot.len(), reasons)
}
