//! One pod of a Job.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodTemplateSpec};
use reconcile::{Effect, Timestamp, pods};
use serde_json::{Value, json};

use crate::podset;

const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// The longest prefix of a generated name.
const PREFIX_CHARS: usize = 58;

/// Whether a pod still waits to be counted.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == TRACKING)
}

/// Takes the finalizer away.
pub(super) fn untrack(pod: &Pod) -> Effect {
    let body = json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
    Effect::strategic(pod, "", body)
}

/// The completion index of a pod of an indexed Job.
pub(super) fn index(pod: &Pod) -> Option<usize> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// Whether a pod counts as failed: also when it was deleted before it came to an end, unless only failed pods are
/// replaced.
pub(super) fn is_failed(pod: &Pod, job: &Job) -> bool {
    let replace_failed = job.spec.as_ref().and_then(|s| s.pod_replacement_policy.as_deref()) == Some("Failed");
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pods::is_deleting(pod) && !replace_failed,
    }
}

/// When a pod came to its end, and whether it failed.
pub(super) fn ended(pod: &Pod) -> Option<(Timestamp, bool)> {
    if !pods::is_terminal(pod) {
        return None;
    }
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    let terminated = statuses.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let at = terminated.map(|t| t.0).max().or(created).unwrap_or(Timestamp::MIN);
    Some((at, pods::phase(pod) == "Failed"))
}

/// A new pod, of an index if the Job has indexes.
pub(super) fn new(job: &Job, index: Option<usize>) -> Value {
    let mut template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut prefix = job.metadata.name.clone().unwrap_or_default();
    if let Some(index) = index {
        mark(job, &mut template, index);
        let suffix = format!("-{index}");
        prefix.truncate(PREFIX_CHARS - suffix.len() - 1);
        prefix.push_str(&suffix);
    }
    let finalizers = template.metadata.get_or_insert_default().finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == TRACKING) {
        finalizers.push(TRACKING.into());
    }
    podset::from_template(job, &prefix, &template)
}

/// Tells a pod its index: annotation, label, environment and host name.
fn mark(job: &Job, template: &mut PodTemplateSpec, index: usize) {
    let meta = template.metadata.get_or_insert_default();
    meta.annotations.get_or_insert_default().insert(INDEX.into(), index.to_string());
    meta.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let spec = template.spec.get_or_insert_default();
    spec.hostname = Some(format!("{}-{index}", job.metadata.name.as_deref().unwrap_or_default()));
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        add_env(container);
    }
}

fn add_env(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|e| e.name == INDEX_ENV) {
        return;
    }
    let field = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    env.push(EnvVar { name: INDEX_ENV.into(), value: None, value_from: Some(source) });
}
