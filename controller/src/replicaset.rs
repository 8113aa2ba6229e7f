//! ReplicaSet: so many pods from a template (`pkg/controller/replicaset`).

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use reconcile::conditions;
use reconcile::{
    Change, Controller, Decider, Effect, Failure, Key, Outcome, Timestamp, Watch, World, merge, owners, pods, selector,
};

use crate::podset::{self, count, nonzero};

/// The most pods created or deleted in one go.
const BURST: usize = 500;
const FAILURE: &str = "ReplicaFailure";

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
        podset::touched::<ReplicaSet>(change, world, |rs| Some(&rs.spec.selector))
    }
}

impl Decider for ReplicaSets {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(rs) = world.get::<ReplicaSet>(&key.object) else {
            return Outcome::nothing("Gone", "the ReplicaSet does not exist");
        };
        let claim = match owners::claim::<ReplicaSet, Pod>(world, (self.name(), key), rs, &rs.spec.selector) {
            Ok(claim) => claim,
            Err(wait) => return wait,
        };
        let mut outcome = Outcome { effects: claim.effects, ..Outcome::default() };
        let (active, rest): (Vec<&Pod>, Vec<&Pod>) = claim.objects.into_iter().partition(|p| pods::is_active(p));
        let terminating = rest.iter().filter(|p| pods::is_terminating(p)).count();

        let failure = world.failure(self.name(), key);
        let (status, wake_at) = status(rs, &active, terminating, failure, now);
        let patch =
            merge::status(rs.metadata.resource_version.as_deref(), &rs.status.clone().unwrap_or_default(), &status);
        let patch = patch.map(|body| Effect::patch_status(rs, body));
        let scaling = match rs.metadata.deletion_timestamp {
            Some(_) => Vec::new(),
            None => scale(world, rs, &active, now, &mut outcome),
        };
        // What failed last time is told first: what follows may well fail again.
        match failure {
            Some(_) => outcome.effects.extend(patch.into_iter().chain(scaling)),
            None => outcome.effects.extend(scaling.into_iter().chain(patch)),
        }
        outcome.wake_at = wake_at;
        outcome
    }
}

fn desired(rs: &ReplicaSet) -> usize {
    rs.spec.replicas.map_or(1, |n| usize::try_from(n).unwrap_or_default())
}

fn scale(
    world: &World,
    rs: &ReplicaSet,
    active: &[&Pod],
    now: Timestamp,
    outcome: &mut Outcome<Effect>,
) -> Vec<Effect> {
    let (have, want) = (active.len(), desired(rs));
    if have < want {
        let Some(template) = &rs.spec.template else { return Vec::new() };
        let pod = podset::from_template(rs, rs.metadata.name.as_deref().unwrap_or_default(), template);
        outcome.because("TooFew", format!("{have} of {want} pods are active"));
        return (have..want).take(BURST).map(|_| podset::create(rs, pod.clone())).collect();
    }
    if have == want {
        outcome.because("AsDesired", format!("{have} of {want} pods are active"));
        return Vec::new();
    }
    outcome.because("TooMany", format!("{have} of {want} pods are active"));
    let ordered = podset::by_deletion_order(active.to_vec(), &related(world, rs), now);
    ordered.into_iter().take((have - want).min(BURST)).map(|pod| podset::delete(rs, pod)).collect()
}

/// The pods of all ReplicaSets that share this one's controller (a Deployment), or its own.
fn related<'a>(world: &'a World, rs: &'a ReplicaSet) -> Vec<&'a Pod> {
    let owner = owners::controller(&rs.metadata).map(|o| o.uid.as_str());
    let namespace = rs.metadata.namespace.as_deref().unwrap_or_default();
    let sibling = |other: &&ReplicaSet| match owner {
        Some(uid) => owners::controller(&other.metadata).is_some_and(|o| o.uid == uid),
        None => other.metadata.uid == rs.metadata.uid,
    };
    let siblings = world.in_namespace::<ReplicaSet>(namespace).filter(sibling);
    siblings.filter_map(|s| s.metadata.uid.as_deref()).flat_map(|uid| world.owned::<Pod>(uid)).collect()
}

fn status(
    rs: &ReplicaSet,
    active: &[&Pod],
    terminating: usize,
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
        terminating_replicas: Some(count(terminating)),
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
