//! PodTopologySpread: pods that belong together are spread over nodes, zones or whatever a label names.

use std::borrow::Cow;
use std::sync::Arc;

use super::Scope;
use super::node_affinity::allows;
use super::taint_toleration::admits;
use crate::snapshot::{Domains, Tally};
use crate::{
    Candidates, Event, Footprint, MAX_SCORE, Namespaces, Node, NodeIndex, Plugin, Reason, Snapshot, Spread, Wanted,
};

const TOO_UNEVEN: Reason = Reason::resolvable("node(s) didn't match pod topology spread constraints");
const NO_LABEL: Reason =
    Reason::unresolvable("node(s) didn't match pod topology spread constraints (missing required label)");
const REASONS: &[Reason] = &[TOO_UNEVEN, NO_LABEL];
const HOSTNAME: &str = "kubernetes.io/hostname";

pub(super) struct PodTopologySpread;

/// One constraint with what there is at this moment.
struct Counted<'a> {
    spread: &'a Spread,
    domains: Arc<Domains>,
    tally: Option<Cow<'a, Tally>>,
    /// Pods per domain.
    pods: Vec<i64>,
    /// Whether any node of each domain counts; nothing if all do.
    eligible: Option<Vec<bool>>,
}

impl<'a> Counted<'a> {
    /// Counts on the nodes that `labelled` names and the constraint's policies include.
    fn new(spread: &'a Spread, pod: &Wanted, snapshot: &'a Snapshot, labelled: Option<&[bool]>) -> Self {
        let domains = snapshot.domains(&spread.key);
        let tally = spread.group.as_ref().map(|group| snapshot.tally(group));
        let includes = includes(spread, pod, snapshot);
        let mut counted = Self { spread, domains, tally, pods: Vec::new(), eligible: None };
        match (labelled, includes) {
            (None, None) => counted.count_all(),
            (labelled, includes) => {
                let on =
                    |at| labelled.is_none_or(|l| l.get(at) == Some(&true)) && includes.as_ref().is_none_or(|i| i(at));
                counted.count_some(on);
            }
        }
        counted
    }

    fn count_all(&mut self) {
        self.pods = match &self.tally {
            Some(tally) => tally.by(&self.spread.key, &self.domains).into_owned(),
            None => vec![0; self.domains.count],
        };
    }

    fn count_some(&mut self, on: impl Fn(NodeIndex) -> bool) {
        let (mut pods, mut eligible) = (vec![0; self.domains.count], vec![false; self.domains.count]);
        for (at, domain) in self.domains.of.iter().enumerate() {
            let Some(domain) = domain.filter(|_| on(at)) else { continue };
            if let (Some(sum), Some(eligible)) = (pods.get_mut(domain), eligible.get_mut(domain)) {
                *sum += self.on(at);
                *eligible = true;
            }
        }
        (self.pods, self.eligible) = (pods, Some(eligible));
    }

    /// Pods on a node.
    fn on(&self, node: NodeIndex) -> i64 {
        self.tally.as_ref().and_then(|tally| tally.per_node.get(node)).copied().unwrap_or(0)
    }

    /// Pods in a domain.
    fn within(&self, domain: usize) -> i64 {
        self.pods.get(domain).copied().unwrap_or(0)
    }

    /// The fewest pods of any domain; none if there are too few domains.
    fn fewest(&self) -> i64 {
        let counts = |domain: usize| self.eligible.as_ref().is_none_or(|e| e.get(domain) == Some(&true));
        let domains = match &self.eligible {
            None => self.pods.len(),
            Some(eligible) => eligible.iter().filter(|e| **e).count(),
        };
        if domains < usize::try_from(self.spread.min_domains).unwrap_or(0) {
            return 0;
        }
        let pods = self.pods.iter().enumerate().filter(|(domain, _)| counts(*domain)).map(|(_, pods)| *pods);
        pods.min().unwrap_or(i64::from(i32::MAX))
    }
}

/// Whether the constraint's policies let a node count; nothing if they let all.
fn includes<'a>(
    spread: &Spread,
    pod: &'a Wanted,
    snapshot: &'a Snapshot,
) -> Option<impl Fn(NodeIndex) -> bool + use<'a>> {
    let choosy = spread.honors_affinity && !(pod.nodes.labels.is_empty() && pod.nodes.required.is_none());
    let admits = move |taints: &_| admits(taints, &pod.tolerations);
    let all_admit = !spread.honors_taints || snapshot.taint_sets.iter().all(|taints| admits(taints));
    let admitted = snapshot.by_taints(move |taints| all_admit || admits(taints));
    (choosy || !all_admit).then_some(move |at| {
        (!choosy || snapshot.node(at).is_some_and(|n| allows(&pod.nodes, n))) && admitted(at) == Some(true)
    })
}

/// Which nodes have the labels of all constraints; nothing if it makes no difference to how each one counts.
fn labelled(spreads: &[&Spread], snapshot: &Snapshot) -> Option<Vec<bool>> {
    let domains: Vec<_> = spreads.iter().map(|s| snapshot.domains(&s.key)).collect();
    if domains.len() < 2 || domains.iter().all(|d| d.unlabelled == 0) {
        return None;
    }
    Some((0..snapshot.len()).map(|at| domains.iter().all(|d| d.at(at).is_some())).collect())
}

/// Whether a pod is among those that a constraint spreads.
fn matches(spread: &Spread, pod: &Footprint) -> bool {
    spread.group.as_ref().is_some_and(|group| group.describes(pod, &Namespaces::new()))
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        let hard: Vec<&Spread> = pod.spread.iter().filter(|s| s.hard).collect();
        if hard.is_empty() {
            return;
        }
        let labelled = labelled(&hard, snapshot);
        let constraint = |spread| {
            let counted = Counted::new(spread, pod, snapshot, labelled.as_deref());
            let room = i64::from(spread.max_skew) + counted.fewest() - i64::from(matches(spread, &pod.footprint));
            (counted, room)
        };
        let constraints: Vec<(Counted<'_>, i64)> = hard.into_iter().map(constraint).collect();
        let why = |(counted, room): &(Counted<'_>, i64), at| match counted.domains.at(at) {
            None => 2,
            Some(domain) => u64::from(counted.within(domain) > *room),
        };
        nodes.refuse_for(REASONS, |at| constraints.iter().map(|c| why(c, at)).find(|why| *why != 0).unwrap_or(0));
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) -> bool {
        let soft: Vec<&Spread> = pod.spread.iter().filter(|s| !s.hard).collect();
        if soft.is_empty() {
            return false;
        }
        // Nodes without all labels get no score, unless nobody asked for those labels.
        let domains: Vec<Arc<Domains>> = soft.iter().map(|s| snapshot.domains(&s.key)).collect();
        let whole = |at: NodeIndex| domains.iter().all(|d| d.at(at).is_some());
        let lacking = !pod.spread_by_default && domains.iter().any(|d| d.unlabelled > 0);
        let scored: Option<Vec<bool>> = lacking.then(|| (0..snapshot.len()).map(whole).collect());
        let crowd = |s| Crowd::new(Counted::new(s, pod, snapshot, scored.as_deref()), nodes, scored.as_deref());
        let crowds: Vec<Crowd<'_>> = soft.into_iter().map(crowd).collect();
        let is_scored = |at: NodeIndex| scored.as_ref().is_none_or(|s| s.get(at) == Some(&true));
        for (score, at) in scores.iter_mut().zip(nodes).filter(|(_, at)| is_scored(**at)) {
            *score = crowds.iter().map(|crowd| crowd.at(*at)).sum::<f64>().round() as i64;
        }
        normalize(scores, nodes, is_scored);
        true
    }

    fn heeds(&self, event: &Event<'_>) -> bool {
        !matches!(event, Event::Namespace)
    }

    fn wakes_on(&self, pod: &Wanted, event: &Event<'_>) -> bool {
        match event {
            Event::PodPlaced(other) | Event::PodLeft(other) => {
                other.namespace == pod.footprint.namespace && pod.spread.iter().any(|s| matches(s, other))
            }
            Event::Node { was, now } => {
                let values = |n: &Node| pod.spread.iter().map(|s| n.labels.get(&s.key).cloned()).collect::<Vec<_>>();
                was.is_none_or(|w| values(w) != values(now) || w.taints != now.taints)
            }
            Event::Namespace => false,
        }
    }
}

/// The fewer pods the better, relative to the node with the most.
fn normalize(scores: &mut [i64], nodes: &[NodeIndex], scored: impl Fn(NodeIndex) -> bool) {
    let within = || scores.iter().zip(nodes).filter(|(_, at)| scored(**at)).map(|(s, _)| *s);
    let (most, least) = (within().max().unwrap_or(0), within().min().unwrap_or(0));
    // Many nodes have the same count, and division is slow.
    let mut last = (most, if most == 0 { MAX_SCORE } else { MAX_SCORE * least / most });
    for (score, at) in scores.iter_mut().zip(nodes) {
        if *score != last.0 {
            last = (*score, MAX_SCORE * (most + least - *score) / most.max(1));
        }
        *score = if scored(*at) { last.1 } else { 0 };
    }
}

/// How many pods are near, as one soft constraint counts them.
struct Crowd<'a> {
    counted: Counted<'a>,
    /// Makes constraints with many domains count as much as those with few.
    weight: f64,
}

impl<'a> Crowd<'a> {
    fn new(counted: Counted<'a>, nodes: &[NodeIndex], scored: Option<&[bool]>) -> Self {
        let here = || nodes.iter().filter(|at| scored.is_none_or(|s| s.get(**at) == Some(&true)));
        let size = match counted.spread.key.as_str() {
            HOSTNAME => here().count(),
            _ => distinct(&counted.domains, here()),
        };
        Self { counted, weight: ((size + 2) as f64).ln() }
    }

    fn at(&self, node: NodeIndex) -> f64 {
        let Some(domain) = self.counted.domains.at(node) else { return 0.0 };
        let pods =
            if self.counted.spread.key == HOSTNAME { self.counted.on(node) } else { self.counted.within(domain) };
        pods as f64 * self.weight + f64::from(self.counted.spread.max_skew - 1)
    }
}

/// In how many domains nodes are; those without the label are a domain too.
fn distinct<'a>(domains: &Domains, nodes: impl Iterator<Item = &'a NodeIndex>) -> usize {
    let mut seen = vec![false; domains.count + 1];
    for at in nodes {
        if let Some(seen) = seen.get_mut(domains.at(*at).map_or(0, |domain| domain + 1)) {
            *seen = true;
        }
    }
    seen.into_iter().filter(|s| *s).count()
}
