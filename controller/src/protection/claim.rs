//! The protection of claims: by the pods that use them. Before anything is said to be unused, the server's own list of
//! pods is compared with what the watch has said.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, PersistentVolumeClaimCondition, Pod};
use reconcile::resource::{name_of, revision_of};
use reconcile::{
    Answer, Change, Controller, Decider, Effect, Key, Live, ObjectName, Outcome, Resource, Timestamp, Watch, World,
    conditions, owners, pods,
};
use serde_json::json;

use super::{Need, need, written};

const NAME: &str = "persistentvolumeclaim-protection-controller";
const FINALIZER: &str = "kubernetes.io/pvc-protection";
/// The condition that says since when no pod names a claim.
const UNUSED: &str = "Unused";
/// How soon to look again at pods that the watch has not yet told of.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// The controller of claims' protection.
pub struct Claims;

impl Controller for Claims {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<PersistentVolumeClaim>(), Watch::of::<Pod>()]
    }

    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        let mut keys: Vec<Key> = change.key_of::<PersistentVolumeClaim>().into_iter().collect();
        for pod in change.was::<Pod>().into_iter().chain(change.now::<Pod>()) {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let names = claims(pod).map(|claim| ObjectName { namespace: namespace.clone(), name: claim.name });
            keys.extend(names.map(Key::of::<PersistentVolumeClaim>));
        }
        keys.sort();
        keys.dedup();
        keys
    }
}

/// A claim that a pod names.
struct Named {
    name: String,
    /// It is made for the pod, and the pod's only where the pod owns it.
    ephemeral: bool,
}

fn claims(pod: &Pod) -> impl Iterator<Item = Named> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(Named { name: claim.claim_name.clone(), ephemeral: false }),
        (None, Some(_)) => {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            Some(Named { name: format!("{pod}-{}", volume.name), ephemeral: true })
        }
        (None, None) => None,
    })
}

/// Whether a pod names a claim. `ephemeral`: also one that is made for it.
fn names(pod: &Pod, claim: &PersistentVolumeClaim, ephemeral: bool) -> bool {
    let wanted = claim.metadata.name.as_deref().unwrap_or_default();
    let own = || ephemeral && owners::is_controlled_by(&claim.metadata, &pod.metadata);
    claims(pod).any(|named| named.name == wanted && (!named.ephemeral || own()))
}

/// Nothing starts a pod with a claim that is to go, so that only pods which have a node hold it. One that is only
/// waiting to be forgotten holds what was made for it no longer: the two could wait for each other.
fn holds(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let shut_down = pods::is_deleting(pod) && pod.metadata.deletion_grace_period_seconds == Some(0);
    pods::node(pod).is_some() && names(pod, claim, !shut_down)
}

fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    !has_ended(pod) && names(pod, claim, true)
}

/// Its containers will not run any more (`volumeutil.IsPodTerminated`).
fn has_ended(pod: &Pod) -> bool {
    let still = |statuses: &Option<Vec<ContainerStatus>>| {
        let rests =
            |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.terminated.is_some() || s.waiting.is_some());
        statuses.iter().flatten().all(rests)
    };
    let all_still = pod.status.as_ref().is_none_or(|status| {
        still(&status.init_container_statuses)
            && still(&status.container_statuses)
            && still(&status.ephemeral_container_statuses)
    });
    pods::is_terminal(pod) || (pods::is_deleting(pod) && all_still)
}

impl Decider for Claims {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(claim) = world.get::<PersistentVolumeClaim>(&key.object) else {
            return Outcome::nothing("Gone", "the claim does not exist");
        };
        let any = |in_use: fn(&Pod, &PersistentVolumeClaim) -> bool| {
            world.in_namespace::<Pod>(&key.object.namespace).any(|pod| in_use(pod, claim))
        };
        let need = need(&claim.metadata, FINALIZER);
        let is_bound = claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"));
        let condition =
            (is_bound && claim.metadata.deletion_timestamp.is_none()).then(|| wanted(claim, any(uses))).flatten();
        let goes = need == Need::Remove && !any(holds);
        if (goes || condition == Some("True"))
            && let Err(outcome) = confirmed(world, key, now)
        {
            return outcome;
        }
        let mut outcome = match need {
            Need::Remove if !goes => Outcome::nothing("InUse", "a pod uses the claim"),
            Need::Remove => Outcome::nothing("Unused", "no pod uses the claim any more"),
            Need::Add => Outcome::nothing("Unprotected", "the claim has no finalizer yet"),
            Need::Nothing => Outcome::nothing("AsDesired", "the finalizer is as it should be"),
        };
        // Each write is made from the claim's revision: the condition comes first, what is left in the next decision.
        if let Some(status) = condition {
            outcome.because("UnusedChanged", format!("the condition Unused becomes {status}"));
            outcome.effect(says(claim, status, now));
        } else if need == Need::Add || goes {
            outcome.effect(written(claim, FINALIZER, need));
        }
        outcome
    }
}

/// What the condition should say where it says something else.
fn wanted(claim: &PersistentVolumeClaim, used: bool) -> Option<&'static str> {
    let conditions = claim.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let says = conditions.filter(|c| c.type_ == UNUSED).map(|c| c.status.as_str()).next();
    match (used, says) {
        (true, None | Some("True")) => Some("False"),
        (false, says) if says != Some("True") => Some("True"),
        _ => None,
    }
}

fn says(claim: &PersistentVolumeClaim, status: &str, now: Timestamp) -> Effect {
    let (reason, message) = match status {
        "True" => ("NoPodsUsingPVC", "No pods are currently referencing this PVC"),
        _ => ("PodUsingPVC", "A pod is currently referencing this PVC"),
    };
    let said = json!({"type": UNUSED, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": conditions::time(now)});
    let known: Vec<&PersistentVolumeClaimCondition> =
        claim.status.iter().flat_map(|status| status.conditions.iter().flatten()).collect();
    let mut all: Vec<_> = known.iter().filter(|c| c.type_ != UNUSED).map(|c| json!(c)).collect();
    let at = known.iter().position(|c| c.type_ == UNUSED).unwrap_or(all.len());
    all.insert(at.min(all.len()), said);
    let version = json!({"resourceVersion": claim.metadata.resource_version});
    Effect::patch_status(claim, json!({"metadata": version, "status": {"conditions": all}}))
}

/// Whether the watch has told of all pods that the server has in the claim's namespace, as they are there.
fn confirmed(world: &World, key: &Key, now: Timestamp) -> Result<(), Outcome<Effect>> {
    let pods = Resource::of::<Pod>();
    let question = Live::List(pods.clone(), key.object.namespace.clone());
    let later = |reason, message| {
        let mut outcome = Outcome::nothing(reason, message);
        outcome.wake(now.saturating_add(AGAIN).unwrap_or(now));
        Err(outcome)
    };
    let listed = match world.live(NAME, key, &question) {
        None => return Err(Outcome { read_live: vec![question], ..Outcome::default() }),
        Some(Answer::List(listed)) => listed,
        Some(_) => return later("Unanswered", "the server did not answer about the pods"),
    };
    let told = |meta| {
        let known = world.object(&pods, &name_of(meta));
        known.is_some_and(|known| revision_of(known.metadata()) >= revision_of(meta))
    };
    match listed.iter().all(|pod| told(pod.metadata())) {
        true => Ok(()),
        false => later("Behind", "the server has pods that the watch has not yet told of"),
    }
}
