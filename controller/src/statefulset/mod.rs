//! StatefulSet: pods with names of their own, one after the other (`pkg/controller/statefulset`).

mod claims;
mod pods;
mod replicas;
mod status;
#[cfg(test)]
mod tests;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use reconcile::resource::name_of;
use reconcile::{Change, Controller, Decider, Effect, Key, Outcome, Timestamp, Watch, World, merge, owners, selector};

use crate::history::{self, Template};
use crate::podset;
use replicas::Replicas;

const NAME: &str = "statefulset-controller";
/// The label of a revision that holds its hash.
const HASH: &str = "controller.kubernetes.io/hash";

/// The StatefulSet controller.
pub struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<StatefulSet>(),
            Watch::of::<Pod>(),
            Watch::of::<ControllerRevision>(),
            Watch::of::<PersistentVolumeClaim>(),
        ]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let mut keys =
            podset::touched(change, world, |set: &StatefulSet, labels| selector::selects(&set.spec.selector, labels));
        let by_revision = change.both::<ControllerRevision>();
        keys.extend(by_revision.filter_map(|r| owners::controller_key::<StatefulSet>(&r.metadata)));
        for claim in change.both::<PersistentVolumeClaim>() {
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let sets = world.in_namespace::<StatefulSet>(namespace).filter(|set| claims::is_of(set, name));
            keys.extend(sets.map(|set| Key::of::<StatefulSet>(name_of(&set.metadata))));
        }
        keys
    }
}

impl Decider for StatefulSets {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(set) = world.get::<StatefulSet>(&key.object) else {
            return Outcome::nothing("Gone", "the StatefulSet does not exist");
        };
        let is_its = |pod: &Pod| {
            selector::matches(&set.spec.selector, pod.metadata.labels.as_ref()) && pods::is_member(set, pod)
        };
        let claim = match owners::claim_those::<StatefulSet, Pod>(world, (NAME, key), set, is_its) {
            Ok(claim) => claim,
            Err(wait) => return wait,
        };
        let mut outcome = Outcome { effects: claim.effects, ..Outcome::default() };
        let collisions = set.status.as_ref().and_then(|s| s.collision_count);
        let kept = Template { owner: set, template: &set.spec.template, collisions, label: HASH };
        let history = match history::of(world, &kept) {
            Ok(history) => history,
            Err(_) if set.metadata.deletion_timestamp.is_some() => return outcome,
            Err(effect) => {
                // Pods carry the revision's name, so the revision comes first.
                outcome.because("Revision", "the template is new");
                outcome.effect(*effect);
                return outcome;
            }
        };
        let named = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let before = history.revisions.iter().find(|r| named.is_some() && r.metadata.name.as_deref() == named);
        let revisions =
            pods::Revisions { current: before.copied().unwrap_or(history.current), update: history.current };
        let replicas = Replicas::new(world, set, &revisions, claim.objects, now);
        let mut status = status::of(set, &revisions, &replicas);
        if set.metadata.deletion_timestamp.is_none() {
            replicas.manage(&mut status, &mut outcome);
        }
        replicas.wake(&mut outcome);
        status::complete(set, &mut status);
        let old = set.status.clone().unwrap_or_default();
        let patch = merge::status(set.metadata.resource_version.as_deref(), &old, &status);
        outcome.effects.extend(patch.map(|body| Effect::patch_status(set, body)));
        let in_use = |revision: &ControllerRevision| {
            let name = revision.metadata.name.as_deref();
            name == revisions.current.metadata.name.as_deref() || replicas.pods().any(|pod| pods::revision(pod) == name)
        };
        outcome.effects.extend(history.surplus(set.spec.revision_history_limit, in_use));
        outcome
    }
}
