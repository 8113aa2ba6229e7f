//! The claims of a StatefulSet's pods: made before the pod, kept or going with the pod or the set.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use reconcile::effect::reference;
use reconcile::{Effect, Kind, ObjectName, World, owners};
use serde_json::{Value, json};

use super::{pods, replicas};

fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec.volume_claim_templates.iter().flatten()
}

/// `template-set-`: an ordinal makes it the name of a claim.
fn prefix(set: &StatefulSet, template: &PersistentVolumeClaim) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    format!("{}-{}-", name(&template.metadata.name), name(&set.metadata.name))
}

fn name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> ObjectName {
    let namespace = set.metadata.namespace.clone().unwrap_or_default();
    ObjectName { namespace, name: format!("{}{ordinal}", prefix(set, template)) }
}

/// Whether a claim of that name is one of the set's.
pub(super) fn is_of(set: &StatefulSet, name: &str) -> bool {
    let is_ordinal = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    templates(set).any(|template| name.strip_prefix(&prefix(set, template)).is_some_and(is_ordinal))
}

/// The volumes of a pod that are claims.
pub(super) fn volumes(set: &StatefulSet, ordinal: i32) -> Vec<Value> {
    let volume = |template: &PersistentVolumeClaim| {
        let claim = name(set, template, ordinal).name;
        json!({"name": template.metadata.name, "persistentVolumeClaim": {"claimName": claim}})
    };
    templates(set).map(volume).collect()
}

/// Creates the claims of a pod that are not there. One that is going must be gone first.
pub(super) fn missing(world: &World, set: &StatefulSet, ordinal: i32) -> Result<Vec<Effect>, String> {
    let mut effects = Vec::new();
    for template in templates(set) {
        let name = name(set, template, ordinal);
        match world.get::<PersistentVolumeClaim>(&name) {
            None => effects.push(create(set, template, &name, ordinal)),
            Some(claim) if claim.metadata.deletion_timestamp.is_some() => {
                return Err(format!("pvc {} is being deleted", name.name));
            }
            Some(_) => {}
        }
    }
    Ok(effects)
}

fn create(set: &StatefulSet, template: &PersistentVolumeClaim, name: &ObjectName, ordinal: i32) -> Effect {
    let mut labels = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name.name, "namespace": name.namespace, "labels": labels,
            "annotations": template.metadata.annotations.clone().unwrap_or_default(),
        },
        "spec": template.spec,
    });
    let (pod, own) = (pods::name(set, ordinal), set.metadata.name.as_deref().unwrap_or_default());
    let done = format!("Create Claim {} Pod {pod} in StatefulSet {own} success", name.name);
    let failed = format!("Create Claim {} for Pod {pod} in StatefulSet {own} failed error: {{error}}", name.name);
    let told = pods::notices(set, "Create", done, failed);
    Effect::create::<PersistentVolumeClaim>(&name.namespace, claim).telling(told)
}

/// Whether claims go when the set is deleted, and when their pod is not asked for any longer.
fn policy(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let goes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    (goes(policy.and_then(|p| p.when_deleted.as_ref())), goes(policy.and_then(|p| p.when_scaled.as_ref())))
}

fn refers<T: Kind>(owner: &OwnerReference, name: Option<&str>) -> bool {
    owner.api_version == T::API_VERSION && owner.kind == T::KIND && Some(owner.name.as_str()) == name
}

/// Whether a claim belongs to a pod of that name which is no more: it goes with it, and must be gone first.
pub(super) fn is_stale(world: &World, set: &StatefulSet, ordinal: i32) -> bool {
    let pod = pods::name(set, ordinal);
    let belongs = |claim: &PersistentVolumeClaim| {
        claim.metadata.owner_references.iter().flatten().any(|owner| refers::<Pod>(owner, Some(&pod)))
    };
    let claims = templates(set).filter_map(|t| world.get::<PersistentVolumeClaim>(&name(set, t, ordinal)));
    policy(set).1 && claims.into_iter().any(belongs)
}

/// Makes the claims of a pod belong to the set or to the pod, so that they go with it, or to neither.
pub(super) fn own(world: &World, set: &StatefulSet, pod: &Pod) -> Vec<Effect> {
    let Some(ordinal) = pods::ordinal(pod) else { return Vec::new() };
    let claims = templates(set).filter_map(|t| world.get::<PersistentVolumeClaim>(&name(set, t, ordinal)));
    claims.flat_map(|claim| owned(set, pod, ordinal, claim)).collect()
}

fn owned(set: &StatefulSet, pod: &Pod, ordinal: i32, claim: &PersistentVolumeClaim) -> Vec<Effect> {
    let (of_set, of_pod) = (set.metadata.name.as_deref(), pod.metadata.name.as_deref());
    let is_own = |owner: &&OwnerReference| refers::<StatefulSet>(owner, of_set) || refers::<Pod>(owner, of_pod);
    let uids = [set.metadata.uid.as_deref(), pod.metadata.uid.as_deref()];
    let there = claim.metadata.owner_references.iter().flatten();
    let (own, others): (Vec<&OwnerReference>, Vec<&OwnerReference>) = there.partition(is_own);
    if own.iter().any(|owner| !uids.contains(&Some(owner.uid.as_str()))) {
        // Of an earlier set or pod of that name: the garbage collector's.
        return Vec::new();
    }
    let (deleted, scaled) = policy(set);
    let conflict = (deleted || scaled) && others.iter().any(|owner| owner.controller == Some(true));
    let condemned = !replicas::is_wanted(set, ordinal);
    let wanted = match (deleted, scaled) {
        _ if conflict => None,
        (_, true) if condemned => Some(owners::reference(pod)),
        (true, _) => Some(owners::reference(set)),
        (false, _) => None,
    };
    let is_wanted = |owner: &&OwnerReference| {
        let uid = wanted.as_ref().map(|wanted| &wanted["uid"]);
        owner.controller == Some(true) && uid.and_then(Value::as_str) == Some(owner.uid.as_str())
    };
    if own.len() == usize::from(wanted.is_some()) && own.iter().all(is_wanted) {
        return Vec::new();
    }
    let others = others.into_iter().filter_map(|owner| serde_json::to_value(owner).ok());
    let all: Vec<Value> = others.chain(wanted).collect();
    let version = &claim.metadata.resource_version;
    let body = json!({"metadata": {"ownerReferences": all, "resourceVersion": version}});
    let conflict = conflict.then(|| {
        let claim = claim.metadata.name.as_deref().unwrap_or_default();
        let message = format!(
            "PersistentVolumeClaim {claim} has a conflicting OwnerReference that acts as a manging controller, the \
             retention policy is ignored for this claim"
        );
        Effect::warning(reference(set), "ConflictingController", message)
    });
    conflict.into_iter().chain([Effect::patch(claim, body)]).collect()
}
