//! The pods of a StatefulSet: their names, and how they are made.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use reconcile::effect::reference;
use reconcile::{Effect, Notice, Told};
use serde_json::{Value, json};

use super::claims;
use crate::history::{self, REVISION};
use crate::podset;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// What pods are made from: what most are of, and what all shall be of.
pub(super) struct Revisions<'w> {
    pub(super) current: &'w ControllerRevision,
    pub(super) update: &'w ControllerRevision,
}

impl Revisions<'_> {
    /// The name of the revision that all shall be of.
    pub(super) fn update_name(&self) -> Option<&str> {
        self.update.metadata.name.as_deref()
    }
}

/// Whether a pod's name is one of the set's.
pub(super) fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    ordinal(pod).is_some_and(|ordinal| pod.metadata.name.as_ref() == Some(&name(set, ordinal)))
}

/// The ordinal in a pod's name.
pub(super) fn ordinal(pod: &Pod) -> Option<i32> {
    let (_, ordinal) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    ordinal.parse().ok().filter(|_| ordinal.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The name of the pod of an ordinal.
pub(super) fn name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The name of the revision that a pod was made from.
pub(super) fn revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION).map(String::as_str)
}

/// Whether the pod of an ordinal is made from the current revision, because an update has not come to it.
fn is_held(set: &StatefulSet, ordinal: i32) -> bool {
    let strategy = set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let first = match (strategy.and_then(|s| s.type_.as_deref()), rolling) {
        (_, Some(rolling)) => rolling.partition.unwrap_or_default(),
        (Some("RollingUpdate"), None) => set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or_default(),
        _ => return false,
    };
    i64::from(ordinal) < i64::from(start(set)) + i64::from(first)
}

/// The first ordinal.
pub(super) fn start(set: &StatefulSet) -> i32 {
    set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default()
}

/// Creates the pod of an ordinal.
pub(super) fn create(set: &StatefulSet, revisions: &Revisions<'_>, ordinal: i32) -> Option<Effect> {
    let held = is_held(set, ordinal);
    let revision = if held { revisions.current } else { revisions.update };
    let template = match held {
        true => history::template_of(revision)?,
        false => set.spec.template.clone(),
    };
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let name = name(set, ordinal);
    let told = told(set, "Create", &name);
    Some(Effect::create::<Pod>(namespace, pod(set, &template, revision, ordinal)).telling(told))
}

fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &ControllerRevision, ordinal: i32) -> Value {
    let own = set.metadata.name.as_deref().unwrap_or_default();
    let name = name(set, ordinal);
    let mut pod = podset::from_template(set, own, template);
    let metadata = &mut pod["metadata"];
    metadata["name"] = json!(name);
    metadata["labels"][POD_NAME] = json!(name);
    metadata["labels"][POD_INDEX] = json!(ordinal.to_string());
    metadata["labels"][REVISION] = json!(revision.metadata.name);
    let spec = &mut pod["spec"];
    spec["hostname"] = json!(name);
    spec["subdomain"] = json!(set.spec.service_name);
    let mut volumes = claims::volumes(set, ordinal);
    let claimed: Vec<Value> = volumes.iter().map(|volume| volume["name"].clone()).collect();
    let others = template.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let others = others.filter_map(|volume| serde_json::to_value(volume).ok());
    volumes.extend(others.filter(|volume| !claimed.contains(&volume["name"])));
    if !volumes.is_empty() {
        spec["volumes"] = json!(volumes);
    }
    pod
}

/// Gives back the labels that name a pod, where it has lost them.
pub(super) fn name_again(set: &StatefulSet, pod: &Pod) -> Option<Effect> {
    let own = pod.metadata.name.as_ref()?;
    let there = pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_NAME));
    let labels = json!({POD_NAME: own, POD_INDEX: ordinal(pod)?.to_string()});
    let patch = || Effect::patch(pod, json!({"metadata": {"labels": labels}})).telling(told(set, "Update", own));
    (there != Some(own)).then(patch)
}

/// Deletes a pod.
pub(super) fn delete(set: &StatefulSet, pod: &Pod) -> Effect {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    Effect::delete(pod).telling(told(set, "Delete", name))
}

fn told(set: &StatefulSet, verb: &str, pod: &str) -> Told {
    let own = set.metadata.name.as_deref().unwrap_or_default();
    let text = format!("{verb} Pod {pod} in StatefulSet {own}");
    notices(set, verb, format!("{text} successful"), format!("{text} failed error: {{error}}"))
}

/// What the set's Events say of something done or failed.
pub(super) fn notices(set: &StatefulSet, verb: &str, done: String, failed: String) -> Told {
    let notice = |warning, outcome: &str, message| Notice {
        about: reference(set),
        warning,
        reason: format!("{outcome}{verb}"),
        message,
    };
    Told { done: Some(notice(false, "Successful", done)), failed: Some(notice(true, "Failed", failed)) }
}
