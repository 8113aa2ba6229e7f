//! Deployment: rolls ReplicaSets of one template over to the next (`pkg/controller/deployment`).

mod revision;
mod rollout;
mod sets;
mod status;

#[cfg(test)]
mod tests;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use reconcile::effect::reference;
use reconcile::resource::name_of;
use reconcile::{
    Change, Controller, Decider, Effect, Key, Outcome, Timestamp, Watch, World, merge, owners, pods, selector,
};
use serde_json::json;

use sets::Sets;

/// The Deployment controller.
pub struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Deployment>(), Watch::of::<ReplicaSet>(), Watch::of::<Pod>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let own = change.key_of::<Deployment>().into_iter();
        let sets = change.both::<ReplicaSet>().filter_map(|rs| owners::controller_key::<Deployment>(&rs.metadata));
        let mut keys: Vec<Key> = own.chain(sets).collect();
        keys.extend(change.now::<ReplicaSet>().into_iter().flat_map(|rs| would_adopt(rs, world)));
        keys.extend(last_pod_gone(change, world));
        keys
    }
}

/// The Deployments that an orphaned ReplicaSet may belong to.
fn would_adopt<'a>(rs: &'a ReplicaSet, world: &'a World) -> impl Iterator<Item = Key> + 'a {
    let namespace = rs.metadata.namespace.as_deref().unwrap_or_default();
    let orphan = owners::controller(&rs.metadata).is_none();
    let matches = move |d: &&Deployment| orphan && selector::selects(&d.spec.selector, rs.metadata.labels.as_ref());
    world.in_namespace::<Deployment>(namespace).filter(matches).map(|d| Key::of::<Deployment>(name_of(&d.metadata)))
}

/// A strategy of Recreate waits for the old pods to be gone, which no ReplicaSet's status says in time.
fn last_pod_gone(change: &Change, world: &World) -> Option<Key> {
    let pod = change.was::<Pod>()?;
    if change.now::<Pod>().is_some_and(|p| !pods::is_terminal(p)) {
        return None;
    }
    let set = owners::controller_key::<ReplicaSet>(&pod.metadata)?;
    owners::controller_key::<Deployment>(&world.get::<ReplicaSet>(&set.object)?.metadata)
}

impl Decider for Deployments {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(deployment) = world.get::<Deployment>(&key.object) else {
            return Outcome::nothing("Gone", "the Deployment does not exist");
        };
        let spec = &deployment.spec;
        if selector::is_empty(&spec.selector) {
            let mut outcome = Outcome::nothing("SelectingAll", "the selector is empty");
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            outcome.effect(Effect::warning(reference(deployment), "SelectingAll", message));
            return outcome;
        }
        let claim = match owners::claim::<Deployment, ReplicaSet>(world, (self.name(), key), deployment, &spec.selector)
        {
            Ok(claim) => claim,
            Err(wait) => return wait,
        };
        let mut plan = rollout::Plan::new(deployment, Sets::new(deployment, claim.objects), world, now);
        plan.failure = world.failure(self.name(), key);
        plan.run();
        let mut outcome = Outcome { effects: claim.effects, ..Outcome::default() };
        finish(deployment, plan, &mut outcome);
        outcome
    }
}

/// Turns the plan into effects: ReplicaSets first, the Deployment's revision, then its status.
fn finish(deployment: &Deployment, plan: rollout::Plan<'_>, outcome: &mut Outcome<Effect>) {
    outcome.wake_at = status::deadline(deployment, &plan.status, plan.now);
    outcome.reasons.extend(plan.reasons);
    let annotations = plan.revision.as_ref().filter(|r| revision::of(&deployment.metadata) != Some(r.as_str()));
    // By way of its status, where a change of annotations is no new generation.
    let annotate = annotations.map(|revision| {
        Effect::patch_status(deployment, json!({"metadata": {"annotations": {revision::REVISION: revision}}}))
    });
    let old = deployment.status.clone().unwrap_or_default();
    let version = deployment.metadata.resource_version.as_deref();
    // The annotation moves the resourceVersion, so the status waits for the next round, which that change brings.
    let body = merge::status(version, &old, &plan.status).filter(|_| annotate.is_none());
    let status = body.map(|body| Effect::patch_status(deployment, body));
    let (first, last) = if plan.failure.is_some() { (status, None) } else { (None, status) };
    outcome.effects.extend(first);
    outcome.effects.extend(plan.sets.effects(deployment));
    outcome.effects.extend(plan.effects);
    outcome.effects.extend(annotate.into_iter().chain(last));
}
