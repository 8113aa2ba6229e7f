//! ReplicaSet: so many pods from a template (`pkg/controller/replicaset`), and what else asks for pods as it does.

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use reconcile::selector::Labels;
use reconcile::{
    Change, Controller, Decider, Effect, Failure, Key, Kind, Outcome, Timestamp, Watch, World, conditions, merge,
    owners, pods, selector,
};

use crate::podset::{self, count, nonzero};

/// The most pods created or deleted in one go.
const BURST: usize = 500;
const FAILURE: &str = "ReplicaFailure";

/// What asks for so many pods of a template, in the words of a ReplicaSet.
pub(crate) trait Asks: Kind {
    /// Whether its status counts the pods that are going.
    const COUNTS_TERMINATING: bool;

    fn asked(&self) -> Cow<'_, ReplicaSet>;

    fn selects(&self, labels: Option<&Labels>) -> bool;
}

impl Asks for ReplicaSet {
    const COUNTS_TERMINATING: bool = true;

    fn asked(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn selects(&self, labels: Option<&Labels>) -> bool {
        selector::selects(&self.spec.selector, labels)
    }
}

/// The ReplicaSet controller.
pub struct ReplicaSets;

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<ReplicaSet>(), Watch::of::<Pod>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        podset::touched::<ReplicaSet>(change, world, Asks::selects)
    }
}

impl Decider for ReplicaSets {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        decide::<ReplicaSet>(world, (self.name(), key), now)
    }
}

/// What is to be done for the object of a key, by the decider of a name.
pub(crate) fn decide<O: Asks>(world: &World, (decider, key): (&'static str, &Key), now: Timestamp) -> Outcome<Effect> {
    let Some(owner) = world.get::<O>(&key.object) else {
        return Outcome::nothing("Gone", format!("the {} does not exist", O::KIND));
    };
    let rs: &ReplicaSet = &owner.asked();
    let claim = match owners::claim::<O, Pod>(world, (decider, key), owner, &rs.spec.selector) {
        Ok(claim) => claim,
        Err(wait) => return wait,
    };
    let mut outcome = Outcome { effects: claim.effects, ..Outcome::default() };
    let (active, rest): (Vec<&Pod>, Vec<&Pod>) = claim.objects.into_iter().partition(|p| pods::is_active(p));
    let terminating = rest.iter().filter(|p| pods::is_terminating(p)).count();

    let failure = world.failure(decider, key);
    let terminating = O::COUNTS_TERMINATING.then_some(terminating);
    let (status, wake_at) = status(rs, &active, terminating, failure, now);
    let patch = merge::status(rs.metadata.resource_version.as_deref(), &rs.status.clone().unwrap_or_default(), &status);
    let patch = patch.map(|body| Effect::patch_status(owner, body));
    let scaling = match rs.metadata.deletion_timestamp {
        Some(_) => Vec::new(),
        None => scale(world, owner, rs, &active, now, &mut outcome),
    };
    // What failed last time is told first: what follows may well fail again.
    match failure {
        Some(_) => outcome.effects.extend(patch.into_iter().chain(scaling)),
        None => outcome.effects.extend(scaling.into_iter().chain(patch)),
    }
    outcome.wake_at = wake_at;
    outcome
}

fn desired(rs: &ReplicaSet) -> usize {
    rs.spec.replicas.map_or(1, |n| usize::try_from(n).unwrap_or_default())
}

fn scale<O: Asks>(
    world: &World,
    owner: &O,
    rs: &ReplicaSet,
    active: &[&Pod],
    now: Timestamp,
    outcome: &mut Outcome<Effect>,
) -> Vec<Effect> {
    let (have, want) = (active.len(), desired(rs));
    if have < want {
        let Some(template) = &rs.spec.template else { return Vec::new() };
        let pod = podset::from_template(owner, rs.metadata.name.as_deref().unwrap_or_default(), template);
        outcome.because("TooFew", format!("{have} of {want} pods are active"));
        return (have..want).take(BURST).map(|_| podset::create(owner, pod.clone())).collect();
    }
    if have == want {
        outcome.because("AsDesired", format!("{have} of {want} pods are active"));
        return Vec::new();
    }
    outcome.because("TooMany", format!("{have} of {want} pods are active"));
    let ordered = podset::by_deletion_order(active.to_vec(), &related(world, owner), now);
    ordered.into_iter().take((have - want).min(BURST)).map(|pod| podset::delete(owner, pod)).collect()
}

/// The pods of all sets that share this one's controller (a Deployment), or its own.
fn related<'a, O: Asks>(world: &'a World, set: &'a O) -> Vec<&'a Pod> {
    let meta = set.metadata();
    let owner = owners::controller(meta).map(|o| o.uid.as_str());
    let sibling = |other: &&O| match owner {
        Some(uid) => owners::controller(other.metadata()).is_some_and(|o| o.uid == uid),
        None => other.metadata().uid == meta.uid,
    };
    let siblings = world.in_namespace::<O>(meta.namespace.as_deref().unwrap_or_default()).filter(sibling);
    siblings.filter_map(|s| s.metadata().uid.as_deref()).flat_map(|uid| world.owned::<Pod>(uid)).collect()
}

fn status(
    rs: &ReplicaSet,
    active: &[&Pod],
    terminating: Option<usize>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Timestamp>) {
    let spec = &rs.spec;
    let min_ready = spec.min_ready_seconds.unwrap_or_default();
    let labels =
        spec.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone()).unwrap_or_default();
    let labelled = |p: &&&Pod| labels.is_empty() || selector::contains(&labels, p.metadata.labels.as_ref());
    let from: Vec<Timestamp> = active.iter().filter_map(|p| pods::available_from(p, min_ready)).collect();
    let old = rs.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: nonzero(active.iter().filter(labelled).count()),
        ready_replicas: nonzero(active.iter().filter(|p| pods::is_ready(p)).count()),
        available_replicas: nonzero(from.iter().filter(|t| **t <= now).count()),
        terminating_replicas: terminating.map(count),
        observed_generation: rs.metadata.generation.filter(|g| *g != 0),
        conditions: failure_condition(rs, old.conditions, active.len(), failure, now),
    };
    (status, from.into_iter().filter(|t| *t > now).min())
}

fn failure_condition(
    rs: &ReplicaSet,
    conditions: Option<Vec<ReplicaSetCondition>>,
    have: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut list = conditions.unwrap_or_default();
    let reason = match have.cmp(&desired(rs)) {
        std::cmp::Ordering::Less => Some("FailedCreate"),
        std::cmp::Ordering::Greater => Some("FailedDelete"),
        std::cmp::Ordering::Equal => None,
    };
    match (failure.filter(|f| f.code != 409 && f.code != 0), reason) {
        (Some(failure), Some(reason)) => {
            let there = conditions::find(Some(&list), FAILURE).is_some();
            if !there {
                list.push(ReplicaSetCondition {
                    type_: Some(FAILURE.into()),
                    status: Some("True".into()),
                    last_transition_time: Some(conditions::time(now)),
                    reason: Some(reason.into()),
                    message: Some(failure.message.clone()),
                });
            }
        }
        _ => conditions::remove(&mut list, FAILURE),
    }
    Some(list).filter(|l| !l.is_empty())
}

#[cfg(test)]
mod tests;
