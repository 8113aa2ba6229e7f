//! DaemonSet: one pod on every node that fits (`pkg/controller/daemon`).

mod nodes;
mod update;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::effect::reference;
use reconcile::resource::name_of;
use reconcile::{
    Change, Controller, Decider, Effect, Key, Outcome, Timestamp, Watch, World, merge, owners, pods, selector,
};

use crate::history::{self, REVISION, Template};
use crate::podset::{self, count, nonzero};
use nodes::Places;

/// The most pods created or deleted in one go.
const BURST: usize = 250;

/// The DaemonSet controller.
pub struct DaemonSets;

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<DaemonSet>(), Watch::of::<Pod>(), Watch::of::<Node>(), Watch::of::<ControllerRevision>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let mut keys =
            podset::touched(change, world, |ds: &DaemonSet, labels| selector::selects(&ds.spec.selector, labels));
        keys.extend(
            change.both::<ControllerRevision>().filter_map(|r| owners::controller_key::<DaemonSet>(&r.metadata)),
        );
        if concerns(change.was::<Node>()) != concerns(change.now::<Node>()) {
            keys.extend(world.list::<DaemonSet>().map(|ds| Key::of::<DaemonSet>(name_of(&ds.metadata))));
        }
        keys
    }
}

/// What of a node decides whether a pod fits: heartbeats must not wake every DaemonSet.
fn concerns(node: Option<&Node>) -> Option<String> {
    let node = node?;
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|s| s.taints.as_ref());
    let taints: Vec<_> = taints.into_iter().flatten().map(|t| (&t.key, &t.effect, &t.value)).collect();
    Some(format!("{:?} {taints:?}", node.metadata.labels))
}

impl Decider for DaemonSets {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(ds) = world.get::<DaemonSet>(&key.object) else {
            return Outcome::nothing("Gone", "the DaemonSet does not exist");
        };
        if selector::is_empty(&ds.spec.selector) {
            let mut outcome = Outcome::nothing("SelectingAll", "the selector is empty");
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            outcome.effect(Effect::warning(reference(ds), "SelectingAll", message));
            return outcome;
        }
        if ds.metadata.deletion_timestamp.is_some() {
            return Outcome::nothing("Deleting", "the DaemonSet is being deleted");
        }
        let claim = match owners::claim::<DaemonSet, Pod>(world, (self.name(), key), ds, &ds.spec.selector) {
            Ok(claim) => claim,
            Err(wait) => return wait,
        };
        let mut outcome = Outcome { effects: claim.effects, ..Outcome::default() };
        let collisions = ds.status.as_ref().and_then(|s| s.collision_count);
        let kept = Template { owner: ds, template: &ds.spec.template, collisions, label: REVISION };
        let history = match history::of(world, &kept) {
            Ok(history) => history,
            Err(effect) => {
                // Pods carry the revision's hash, so the revision comes first.
                outcome.because("Revision", "the template is new");
                outcome.effect(*effect);
                return outcome;
            }
        };
        let hash_of = |meta: &ObjectMeta| meta.labels.as_ref().and_then(|l| l.get(REVISION)).cloned();
        let hash = hash_of(&history.current.metadata).unwrap_or_default();
        let live: Vec<String> = claim.objects.iter().filter_map(|pod| hash_of(&pod.metadata)).collect();
        let places = Places::new(world, ds, claim.objects);
        let mut steps = nodes::manage(ds, &places, &hash, now, &mut outcome);
        if steps.is_empty() {
            steps = update::roll(ds, &places, &hash, now);
        }
        if steps.is_empty() {
            let in_use = |r: &ControllerRevision| hash_of(&r.metadata).is_some_and(|hash| live.contains(&hash));
            outcome.effects.extend(history.surplus(ds.spec.revision_history_limit, in_use));
        }
        outcome.effects.extend(steps.into_iter().take(BURST));
        let status = status(ds, &places, &hash, now, &mut outcome);
        let old = ds.status.clone().unwrap_or_default();
        let patch = merge::status(ds.metadata.resource_version.as_deref(), &old, &status);
        outcome.effects.extend(patch.map(|body| Effect::patch_status(ds, body)));
        outcome
    }
}

fn status(
    ds: &DaemonSet,
    places: &Places<'_>,
    hash: &str,
    now: Timestamp,
    outcome: &mut Outcome<Effect>,
) -> DaemonSetStatus {
    let min_ready = ds.spec.min_ready_seconds.unwrap_or_default();
    let wanted = || places.nodes.iter().filter(|p| p.should_run);
    let firsts = || wanted().filter_map(|p| p.pods.first());
    let available = firsts().filter(|p| pods::is_available(p, min_ready, now)).count();
    for from in firsts().filter_map(|p| pods::available_from(p, min_ready)).filter(|t| *t > now) {
        outcome.wake(from);
    }
    let old = ds.status.clone().unwrap_or_default();
    let desired = wanted().count();
    outcome.because("Counted", format!("{available} of {desired} are available"));
    DaemonSetStatus {
        collision_count: old.collision_count,
        conditions: old.conditions,
        desired_number_scheduled: count(desired),
        current_number_scheduled: count(firsts().count()),
        number_misscheduled: count(places.nodes.iter().filter(|p| !p.should_run && !p.pods.is_empty()).count()),
        number_ready: count(firsts().filter(|p| pods::is_ready(p)).count()),
        number_available: nonzero(available),
        number_unavailable: nonzero(desired.saturating_sub(available)),
        updated_number_scheduled: nonzero(firsts().filter(|p| update::is_updated(p, hash)).count()),
        observed_generation: ds.metadata.generation.filter(|g| *g != 0),
    }
}

#[cfg(test)]
mod tests;
