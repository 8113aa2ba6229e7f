//! Job.

mod policy;
mod validate;

use serde_json::{Value, json};

use super::cell::{self, containers, count, row};
use super::{Change, Operation, Rules, pod_spec, workload};
use crate::field::Errors;
use crate::tree::{fill, get, items_mut, number, object, set, text};
use crate::{Document, Timestamp, duration, time};

pub(super) use validate::template_spec;

/// Rules of `batch/v1 Job`.
pub(super) struct Job;

impl Rules for Job {
    fn default(&self, job: &mut Document) {
        let labels = job.at("/spec/template/metadata/labels").cloned();
        let own = job.at("/metadata/labels").and_then(Value::as_object).map_or(0, serde_json::Map::len);
        if let Some(labels) = labels.filter(|_| own == 0) {
            job.set("/metadata/labels", labels);
        }
        default_spec(object(job.value_mut(), "spec"));
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        if change.operation == Operation::Create && !new.bool_at("/spec/manualSelector") {
            generate_selector(new);
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        validate::validate(new, change)
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        workload::warnings(new, change, "/spec/template", true)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn selectable(&self, job: &Document) -> Vec<(&'static str, String)> {
        vec![("status.successful", count(job, "/status/succeeded").to_string())]
    }

    fn cells(&self, job: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let (names, images) = containers(job, "/spec/template/spec/containers");
        row![
            job.name(),
            status(job),
            completions(job),
            elapsed(job, now),
            cell::age(job, now),
            names,
            images,
            cell::selector_or_none(job.at("/spec/selector")),
        ]
    }
}

/// Defaults of a JobSpec in a Job; a CronJob's template has only those of its pods.
fn default_spec(spec: &mut Value) {
    if get(spec, "completions").is_none() && get(spec, "parallelism").is_none() {
        set(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let limit = if get(spec, "backoffLimitPerIndex").is_some() { i64::from(i32::MAX) } else { 6 };
    fill(spec, "backoffLimit", limit);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    let replacement = if get(spec, "podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replacement);
    fill(spec, "manualSelector", false);
    default_template(spec);
}

/// Defaults of what stands in a JobSpec, in a Job and in a CronJob.
pub(super) fn default_template(spec: &mut Value) {
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            items_mut(rule, "onPodConditions").for_each(|pattern| fill(pattern, "status", "True"));
        }
    }
    pod_spec::template(object(spec, "template"));
}

/// The labels that tell a job's pods from all others.
fn generate_selector(job: &mut Document) {
    let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
    let labels = [
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
    ];
    for (key, value) in labels {
        let pointer = format!("/spec/template/metadata/labels/{}", key.replace('/', "~1"));
        job.set_default(&pointer, json!(value));
    }
    job.set_default("/spec/selector/matchLabels/batch.kubernetes.io~1controller-uid", uid);
}

fn status(job: &Document) -> &'static str {
    let is = |kind| cell::is_true(job, kind);
    let later = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if job.deleting() {
        "Terminating"
    } else {
        later.into_iter().find(|kind| is(kind)).unwrap_or("Running")
    }
}

fn completions(job: &Document) -> String {
    let succeeded = count(job, "/status/succeeded");
    let spec = job.at("/spec").unwrap_or(&Value::Null);
    match (number(spec, "completions"), number(spec, "parallelism").unwrap_or_default()) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn elapsed(job: &Document, now: Timestamp) -> String {
    let status = job.at("/status").unwrap_or(&Value::Null);
    let Some(start) = time::parse(text(status, "startTime")) else { return String::new() };
    let end = time::parse(text(status, "completionTime")).unwrap_or(now);
    duration::human(end.duration_since(start).as_secs())
}
