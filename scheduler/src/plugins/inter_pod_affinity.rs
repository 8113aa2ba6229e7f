//! InterPodAffinity: pods that want to be near other pods, or far from them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodAffinityTerm;
use reconcile::selector;

use crate::{Candidates, Event, Footprint, MAX_SCORE, NodeIndex, Plugin, Reason, Snapshot, Wanted};

const EXISTING_REPEL: Reason = Reason::resolvable("node(s) didn't satisfy existing pods anti-affinity rules");
const NOT_NEAR: Reason = Reason::unresolvable("node(s) didn't match pod affinity rules");
const TOO_NEAR: Reason = Reason::resolvable("node(s) didn't match pod anti-affinity rules");

/// What a placed pod's required affinity counts for in the score of nodes near it.
const HARD_AFFINITY_WEIGHT: i64 = 1;

pub(super) struct InterPodAffinity;

/// Whether a term of `owner` is about `other`.
fn about(term: &PodAffinityTerm, owner: &Footprint, other: &Footprint, snapshot: &Snapshot) -> bool {
    in_namespaces(term, owner, &other.namespace, snapshot)
        && term.label_selector.as_ref().is_some_and(|s| selector::matches(s, Some(&other.labels)))
}

/// The namespaces of a term are those it names and those its selector finds; its own if it says nothing.
fn in_namespaces(term: &PodAffinityTerm, owner: &Footprint, namespace: &str, snapshot: &Snapshot) -> bool {
    let named = term.namespaces.as_deref().unwrap_or_default();
    match &term.namespace_selector {
        None if named.is_empty() => owner.namespace == namespace,
        None => named.iter().any(|n| n == namespace),
        Some(found) => {
            named.iter().any(|n| n == namespace)
                || selector::is_empty(found)
                || selector::matches(found, snapshot.namespaces.get(namespace))
        }
    }
}

/// Places that a label makes one: the label and its value.
type Place<'a> = (&'a str, &'a str);

fn place<'a>(term: &'a PodAffinityTerm, snapshot: &'a Snapshot, at: NodeIndex) -> Option<Place<'a>> {
    Some((&term.topology_key, snapshot.label(at, &term.topology_key)?))
}

fn placed(snapshot: &Snapshot) -> impl Iterator<Item = (NodeIndex, &Footprint)> {
    (0..snapshot.len()).flat_map(|at| snapshot.pods_on(at).map(move |pod| (at, &**pod)))
}

/// The places of pods to which all of the terms apply.
fn attracting<'a>(pod: &'a Wanted, snapshot: &'a Snapshot) -> BTreeSet<Place<'a>> {
    let (own, terms) = (&*pod.footprint, &pod.footprint.near.attracted);
    let all = |other: &Footprint| terms.iter().all(|t| about(t, own, other, snapshot));
    let near = placed(snapshot).filter(|(_, other)| all(other));
    near.flat_map(|(at, _)| terms.iter().filter_map(move |t| place(t, snapshot, at))).collect()
}

/// The places of pods that this pod must stay away from.
fn repelling<'a>(pod: &'a Wanted, snapshot: &'a Snapshot) -> BTreeSet<Place<'a>> {
    let (own, terms) = (&*pod.footprint, &pod.footprint.near.repelled);
    let places = move |(at, other): (NodeIndex, &'a Footprint)| {
        terms.iter().filter(move |t| about(t, own, other, snapshot)).filter_map(move |t| place(t, snapshot, at))
    };
    placed(snapshot).flat_map(places).collect()
}

/// The places whose pods keep this pod away.
fn closed<'a>(pod: &'a Wanted, snapshot: &'a Snapshot) -> BTreeSet<Place<'a>> {
    let places = |(at, other): (NodeIndex, &'a Footprint)| {
        let against = other.near.repelled.iter().filter(move |t| about(t, other, &pod.footprint, snapshot));
        against.filter_map(move |t| place(t, snapshot, at))
    };
    snapshot.choosy().flat_map(places).collect()
}

fn near_enough(pod: &Wanted, snapshot: &Snapshot, attracting: &BTreeSet<Place<'_>>, at: NodeIndex) -> bool {
    let own = &*pod.footprint;
    let terms = &own.near.attracted;
    let Some(places) = terms.iter().map(|t| place(t, snapshot, at)).collect::<Option<Vec<_>>>() else { return false };
    // The first of a group that wants to be together has nobody to be near yet.
    let first = || attracting.is_empty() && terms.iter().all(|t| about(t, own, own, snapshot));
    places.iter().all(|place| attracting.contains(place)) || first()
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        let near = &pod.footprint.near;
        if !near.attracted.is_empty() {
            let attracting = attracting(pod, snapshot);
            nodes.refuse(|at| (!near_enough(pod, snapshot, &attracting, at)).then_some(NOT_NEAR));
        }
        let within =
            |places: &BTreeSet<Place<'_>>, at| places.iter().any(|(key, value)| snapshot.label(at, key) == Some(value));
        if !near.repelled.is_empty() {
            let repelling = repelling(pod, snapshot);
            nodes.refuse(|at| within(&repelling, at).then_some(TOO_NEAR));
        }
        let closed = closed(pod, snapshot);
        if !closed.is_empty() {
            nodes.refuse(|at| within(&closed, at).then_some(EXISTING_REPEL));
        }
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
            let here = liked.iter().filter(|((key, value), _)| snapshot.label(*at, key) == Some(value));
            *score = here.map(|(_, weight)| weight).sum();
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

/// How much the pod likes places, and how much pods there like it.
fn liked<'a>(pod: &'a Wanted, snapshot: &'a Snapshot) -> BTreeMap<Place<'a>, i64> {
    let own = &*pod.footprint;
    let mut liked = BTreeMap::new();
    let mut add = |term: &'a PodAffinityTerm, at, weight: i64| {
        if let Some(place) = place(term, snapshot, at) {
            *liked.entry(place).or_insert(0) += weight;
        }
    };
    let preferred = || weighted(own);
    if preferred().next().is_some() {
        for (at, other) in placed(snapshot) {
            let mine = preferred().filter(|(term, _)| about(term, own, other, snapshot));
            mine.for_each(|(term, weight)| add(term, at, weight));
        }
    }
    for (at, other) in snapshot.choosy() {
        let required = other.near.attracted.iter().map(|term| (term, HARD_AFFINITY_WEIGHT));
        let theirs = required.chain(weighted(other)).filter(|(term, _)| about(term, other, own, snapshot));
        theirs.for_each(|(term, weight)| add(term, at, weight));
    }
    liked
}

/// A pod's preferences; what it dislikes weighs below zero.
fn weighted(pod: &Footprint) -> impl Iterator<Item = (&PodAffinityTerm, i64)> {
    let likes = pod.near.likes.iter().map(|w| (&w.pod_affinity_term, i64::from(w.weight)));
    likes.chain(pod.near.dislikes.iter().map(|w| (&w.pod_affinity_term, -i64::from(w.weight))))
}
