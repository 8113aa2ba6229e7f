//! InterPodAffinity: pods that want to be near other pods, or far from them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PodAffinityTerm;

use crate::snapshot::{Domains, Force};
use crate::{Candidates, Counts, Event, MAX_SCORE, NodeIndex, Plugin, Reason, Snapshot, Wanted};

const EXISTING_REPEL: Reason = Reason::resolvable("node(s) didn't satisfy existing pods anti-affinity rules");
const NOT_NEAR: Reason = Reason::unresolvable("node(s) didn't match pod affinity rules");
const TOO_NEAR: Reason = Reason::resolvable("node(s) didn't match pod anti-affinity rules");

/// What a placed pod's required affinity counts for in the score of nodes near it.
const HARD_AFFINITY_WEIGHT: i64 = 1;

pub(super) struct InterPodAffinity;

/// Sums over the domains of one label.
struct Sums {
    domains: Arc<Domains>,
    sums: Vec<i64>,
}

impl Sums {
    /// Sums up what each node has.
    fn new(key: &str, snapshot: &Snapshot, per_node: &[i64]) -> Self {
        let domains = snapshot.domains(key);
        let mut sums = vec![0; domains.count];
        for (domain, count) in domains.of.iter().zip(per_node).filter(|(_, count)| **count != 0) {
            if let Some(sum) = domain.and_then(|d| sums.get_mut(d)) {
                *sum += count;
            }
        }
        Self { domains, sums }
    }

    /// The sum of a node's domain; nothing if the node lacks the label.
    fn near(&self, node: NodeIndex) -> Option<i64> {
        let domain = self.domains.of.get(node).copied().flatten()?;
        self.sums.get(domain).copied()
    }

    fn is_nothing(&self) -> bool {
        self.sums.iter().all(|sum| *sum == 0)
    }
}

/// How many pods that a term is about are near each node.
fn around(term: &PodAffinityTerm, pod: &Wanted, snapshot: &Snapshot) -> Sums {
    let counts = Counts::Term(Box::new(term.clone()));
    let per_node = snapshot.matching(&pod.footprint.namespace, &counts);
    Sums::new(&term.topology_key, snapshot, &per_node)
}

/// How many pods that all required terms are about are near each node, by each term's label.
fn attracting(pod: &Wanted, snapshot: &Snapshot) -> Vec<Sums> {
    let (namespace, terms) = (&pod.footprint.namespace, &pod.footprint.near.attracted);
    if let [term] = terms.as_slice() {
        return vec![around(term, pod, snapshot)];
    }
    let on = |at| {
        let all = snapshot.pods_on(at).filter(|p| terms.iter().all(|t| snapshot.is_about(t, namespace, p)));
        all.count() as i64
    };
    let per_node: Vec<i64> = (0..snapshot.len()).map(on).collect();
    terms.iter().map(|term| Sums::new(&term.topology_key, snapshot, &per_node)).collect()
}

/// Refuses nodes that are not near enough to the pods this one requires.
fn require_near(pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
    let own = &*pod.footprint;
    let attracting = attracting(pod, snapshot);
    // The first of a group that wants to be together has nobody to be near yet.
    let first = attracting.iter().all(Sums::is_nothing)
        && own.near.attracted.iter().all(|t| snapshot.is_about(t, &own.namespace, own));
    let near = |at| attracting.iter().all(|sums| sums.near(at).is_some_and(|count| count > 0 || first));
    nodes.refuse(|at| (!near(at)).then_some(NOT_NEAR));
}

fn refuse_near(sums: &[Sums], reason: &Reason, nodes: &mut Candidates) {
    let sums: Vec<&Sums> = sums.iter().filter(|s| !s.is_nothing()).collect();
    if !sums.is_empty() {
        let near = |at| sums.iter().any(|s| s.near(at).is_some_and(|count| count > 0));
        nodes.refuse(|at| near(at).then(|| reason.clone()));
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        let near = &pod.footprint.near;
        if !near.attracted.is_empty() {
            require_near(pod, snapshot, nodes);
        }
        let repelling: Vec<Sums> = near.repelled.iter().map(|term| around(term, pod, snapshot)).collect();
        refuse_near(&repelling, &TOO_NEAR, nodes);
        let against = snapshot.sayings().filter(|s| s.force == Force::Repels);
        let against = against.filter(|s| snapshot.is_about(&s.term, &s.namespace, &pod.footprint));
        let closed: Vec<Sums> = against.map(|s| Sums::new(&s.term.topology_key, snapshot, &s.per_node)).collect();
        refuse_near(&closed, &EXISTING_REPEL, nodes);
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) -> bool {
        let liked = liked(pod, snapshot);
        if liked.is_empty() {
            return false;
        }
        for (score, at) in scores.iter_mut().zip(nodes) {
            *score = liked.iter().filter_map(|(sums, weight)| Some(sums.near(*at)? * weight)).sum();
        }
        let (most, least) = (scores.iter().max().copied().unwrap_or(0), scores.iter().min().copied().unwrap_or(0));
        for score in scores.iter_mut() {
            *score = if most > least { MAX_SCORE * (*score - least) / (most - least) } else { 0 };
        }
        true
    }

    fn wakes_on(&self, _: &Wanted, event: &Event<'_>) -> bool {
        match event {
            Event::Node { was, now } => was.is_none_or(|w| w.labels != now.labels),
            Event::PodPlaced(_) | Event::PodLeft(_) => true,
        }
    }
}

/// The pods that this one prefers to be near, and those that prefer to be near it, with what each counts for.
fn liked(pod: &Wanted, snapshot: &Snapshot) -> Vec<(Sums, i64)> {
    let mine = pod.footprint.near.preferred().map(|(term, weight)| (around(term, pod, snapshot), weight));
    let theirs = snapshot.sayings().filter_map(|saying| {
        let weight = match saying.force {
            Force::Attracts => HARD_AFFINITY_WEIGHT,
            Force::Prefers(weight) => weight,
            Force::Repels => return None,
        };
        let about = snapshot.is_about(&saying.term, &saying.namespace, &pod.footprint);
        about.then(|| (Sums::new(&saying.term.topology_key, snapshot, &saying.per_node), weight))
    });
    mine.chain(theirs).collect()
}
