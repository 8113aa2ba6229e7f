//! InterPodAffinity: pods that want to be near other pods, or far from them.

use std::borrow::Cow;
use std::sync::Arc;

use super::Scope;
use crate::snapshot::{Domains, Tally};
use crate::{Candidates, Event, Footprint, Force, MAX_SCORE, NodeIndex, Plugin, Reason, Said, Snapshot, Wanted};

const NOT_NEAR: Reason = Reason::unresolvable("node(s) didn't match pod affinity rules");
const TOO_NEAR: Reason = Reason::resolvable("node(s) didn't match pod anti-affinity rules");
const EXISTING_REPEL: Reason = Reason::resolvable("node(s) didn't satisfy existing pods anti-affinity rules");
const REASONS: &[Reason] = &[NOT_NEAR, TOO_NEAR, EXISTING_REPEL];

/// What a placed pod's required affinity counts for in the score of nodes near it.
const HARD_AFFINITY_WEIGHT: i64 = 1;

pub(super) struct InterPodAffinity;

/// Sums over the domains of one label.
struct Sums<'a> {
    domains: Arc<Domains>,
    sums: Cow<'a, [i64]>,
}

impl<'a> Sums<'a> {
    fn new(label: &str, snapshot: &Snapshot, tally: Cow<'a, Tally>) -> Self {
        let domains = snapshot.domains(label);
        let sums = match tally {
            Cow::Borrowed(tally) => tally.by(label, &domains),
            Cow::Owned(tally) => Cow::Owned(tally.by(label, &domains).into_owned()),
        };
        Self { domains, sums }
    }

    /// The sum of a node's domain; nothing if the node lacks the label.
    fn near(&self, node: NodeIndex) -> Option<i64> {
        self.sums.get(self.domains.at(node)?).copied()
    }
}

/// How many pods that a term is about are near each node; nothing if there is none.
fn around<'a>(said: &Said, snapshot: &'a Snapshot) -> Option<Sums<'a>> {
    let tally = snapshot.tally(&said.about);
    (tally.total != 0).then(|| Sums::new(&said.label, snapshot, tally))
}

/// How many pods that all required terms are about are near each node, by each term's label; nothing if all may go
/// anywhere where the labels are.
struct Attraction<'a> {
    sums: Vec<Sums<'a>>,
    /// The first of a group that wants to be together has nobody to be near yet.
    first: bool,
}

impl<'a> Attraction<'a> {
    fn new(pod: &Footprint, snapshot: &'a Snapshot) -> Option<Self> {
        let group = pod.near.attracting.as_ref()?;
        let sums = |said: &Said| Sums::new(&said.label, snapshot, snapshot.tally(group));
        let sums: Vec<Sums<'_>> = pod.near.with(Force::Attracts).map(sums).collect();
        let nobody = sums.iter().all(|s| s.sums.iter().all(|sum| *sum == 0));
        Some(Self { sums, first: nobody && group.describes(pod, snapshot.namespaces()) })
    }

    fn allows(&self, node: NodeIndex) -> bool {
        self.sums.iter().all(|sums| sums.near(node).is_some_and(|count| count > 0 || self.first))
    }
}

fn any_near(sums: &[Sums<'_>], node: NodeIndex) -> bool {
    sums.iter().any(|s| s.near(node).is_some_and(|count| count > 0))
}

/// Where the pods are that placed pods with a force are about, if this pod is one of them.
fn said_about<'a>(pod: &Footprint, snapshot: &'a Snapshot, wanted: fn(Force) -> bool) -> Vec<(Sums<'a>, Force)> {
    let about = |said: &Said| wanted(said.force) && said.about.has(pod, snapshot.namespaces());
    let found = snapshot.sayings().filter(|saying| about(&saying.said));
    let sums = |label: &str, tally: &'a Tally| Sums::new(label, snapshot, Cow::Borrowed(tally));
    found.map(|saying| (sums(&saying.said.label, &saying.tally), saying.said.force)).collect()
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        let pod = &*pod.footprint;
        let attraction = Attraction::new(pod, snapshot);
        let repelling: Vec<Sums<'_>> = pod.near.with(Force::Repels).filter_map(|s| around(s, snapshot)).collect();
        let against = said_about(pod, snapshot, |force| force == Force::Repels);
        let against: Vec<Sums<'_>> = against.into_iter().map(|(sums, _)| sums).collect();
        if attraction.is_none() && repelling.is_empty() && against.is_empty() {
            return;
        }
        nodes.refuse_for(REASONS, |at| match () {
            () if attraction.as_ref().is_some_and(|a| !a.allows(at)) => 1,
            () if any_near(&repelling, at) => 2,
            () if any_near(&against, at) => 4,
            () => 0,
        });
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) -> bool {
        let liked = liked(&pod.footprint, snapshot);
        if liked.is_empty() {
            return false;
        }
        for (score, at) in scores.iter_mut().zip(nodes) {
            *score = liked.iter().filter_map(|(sums, weight)| Some(sums.near(*at)? * weight)).sum();
        }
        let (most, least) = (scores.iter().max().copied().unwrap_or(0), scores.iter().min().copied().unwrap_or(0));
        for score in scores.iter_mut() {
            let part = if most > least { (*score - least) as f64 / (most - least) as f64 } else { 0.0 };
            *score = (MAX_SCORE as f64 * part) as i64;
        }
        true
    }

    fn heeds(&self, _: &Event<'_>) -> bool {
        true
    }

    fn wakes_on(&self, pod: &Wanted, event: &Event<'_>) -> bool {
        match event {
            Event::Node { was, now } => was.is_none_or(|w| w.labels != now.labels),
            Event::PodPlaced(_) => pod.footprint.near.attracting.is_some(),
            Event::PodLeft(_) | Event::Namespace => true,
        }
    }
}

/// The pods that this one prefers to be near, and those that prefer to be near it, with what each counts for.
fn liked<'a>(pod: &Footprint, snapshot: &'a Snapshot) -> Vec<(Sums<'a>, i64)> {
    let mine = pod.near.preferred().filter_map(|(said, weight)| Some((around(said, snapshot)?, weight)));
    let theirs = said_about(pod, snapshot, |force| force != Force::Repels);
    let weighed = theirs.into_iter().map(|(sums, force)| match force {
        Force::Prefers(weight) => (sums, weight),
        Force::Attracts | Force::Repels => (sums, HARD_AFFINITY_WEIGHT),
    });
    mine.chain(weighed).collect()
}
