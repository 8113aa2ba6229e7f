//! What is wrong with a Job (`pkg/apis/batch/validation`).

use serde_json::Value;

use super::policy;
use crate::field::{Error, Errors, Path};
use crate::kinds::workload::{counts, selected};
use crate::kinds::{Change, Operation, cell, pod_spec};
use crate::tree::{flag, get, items_mut, number, replace, text};
use crate::validation::labels::label_selector;
use crate::validation::{domain_prefixed_path, immutable, supported, text as names};
use crate::{Document, LabelSelector};

/// On create, update and of status.
pub(super) fn validate(new: &Document, change: &Change<'_>) -> Errors {
    let nothing = Value::Null;
    if let ("status", Some(old)) = (change.subresource, change.old) {
        return status(new, old);
    }
    let (spec, path) = (new.at("/spec").unwrap_or(&nothing), Path::new("spec"));
    let mut errors = Errors::new();
    if change.operation == Operation::Create {
        errors.extend(generated_selector(new, spec));
    }
    errors.extend(job_spec(spec, &path));
    errors.extend(template_is_selected(spec, &path));
    if let Some(old) = change.old {
        errors.extend(update(spec, old.at("/spec").unwrap_or(&nothing), &path));
    }
    errors.extend(host_names(new, spec));
    errors
}

fn generated_selector(job: &Document, spec: &Value) -> Errors {
    let mut errors = Errors::new();
    if flag(spec, "manualSelector") {
        return errors;
    }
    let path = Path::new("spec.template.metadata.labels");
    let labels = spec.pointer("/template/metadata/labels").unwrap_or(&Value::Null);
    let expected = [
        ("controller-uid", job.uid()),
        ("job-name", job.name()),
        ("batch.kubernetes.io/controller-uid", job.uid()),
        ("batch.kubernetes.io/job-name", job.name()),
    ];
    for (key, value) in expected {
        let actual = text(labels, key);
        if actual != value {
            errors.push(Error::invalid(path.key(key), labels.clone(), format!("must be '{value}'")));
        }
    }
    let wanted = |key: &str| expected.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    let selector = get(spec, "selector");
    if LabelSelector::from_object(selector).is_ok_and(|s| !s.matches(wanted)) {
        let value = selector.cloned().unwrap_or_default();
        errors.push(Error::invalid(Path::new("spec.selector"), value, "`selector` not auto-generated"));
    }
    errors
}

fn template_is_selected(spec: &Value, path: &Path) -> Errors {
    let mut errors = match get(spec, "selector") {
        None => vec![Error::required(path.child("selector"), "")],
        selector => label_selector(selector, &path.child("selector")),
    };
    errors.extend(selected(spec, path, true));
    errors
}

/// The JobSpec in a CronJob's template.
pub(in crate::kinds) fn template_spec(spec: &Value, path: &Path) -> Errors {
    let mut errors = job_spec(spec, path);
    if flag(spec, "manualSelector") {
        errors.push(Error::not_supported(path.child("manualSelector"), true, &["nil", "false"]));
    }
    errors
}

fn job_spec(spec: &Value, path: &Path) -> Errors {
    let fields = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    let mut errors = counts(spec, &fields, path);
    if get(spec, "maxFailedIndexes").is_some() && get(spec, "backoffLimitPerIndex").is_none() {
        let detail = "when maxFailedIndexes is specified";
        errors.push(Error::required(path.child("backoffLimitPerIndex"), detail));
    }
    if let Some(manager) = get(spec, "managedBy").and_then(Value::as_str) {
        let path = path.child("managedBy");
        errors.extend(domain_prefixed_path(manager, &path));
        if manager.len() > 63 {
            errors.push(Error::too_long(path, 63));
        }
    }
    errors.extend(completion_mode(spec, path));
    if let Some(policy) = get(spec, "podFailurePolicy") {
        errors.extend(policy::failure(policy, spec, &path.child("podFailurePolicy")));
    }
    if let Some(policy) = get(spec, "successPolicy") {
        let path = path.child("successPolicy");
        match (text(spec, "completionMode"), number(spec, "completions")) {
            ("Indexed", completions) => {
                errors.extend(completions.map(|n| policy::success(policy, n, &path)).unwrap_or_default());
            }
            _ => errors.push(Error::invalid(path, policy.clone(), "requires indexed completion mode")),
        }
    }
    errors.extend(replacement_policy(spec, &path.child("podReplacementPolicy")));
    let template = get(spec, "template").unwrap_or(&Value::Null);
    errors.extend(pod_spec::validate_template(template, &path.child("template")));
    errors.extend(restart_policy(spec, template, path));
    errors
}

fn restart_policy(spec: &Value, template: &Value, path: &Path) -> Option<Error> {
    let policy = template.pointer("/spec/restartPolicy").and_then(Value::as_str).unwrap_or_default();
    let path = path.child("template").child("spec").child("restartPolicy");
    match policy {
        "Always" | "" => Some(Error::required(path, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if get(spec, "podFailurePolicy").is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            Some(Error::invalid(path, policy, detail))
        }
        "OnFailure" | "Never" => None,
        other => Some(Error::not_supported(path, other, &["OnFailure", "Never"])),
    }
}

fn completion_mode(spec: &Value, path: &Path) -> Errors {
    let mode = text(spec, "completionMode");
    let (completions, parallelism) = (number(spec, "completions"), number(spec, "parallelism"));
    let failed = number(spec, "maxFailedIndexes");
    let mut errors = match mode {
        "" => Errors::new(),
        mode => supported(mode, &path.child("completionMode"), &["NonIndexed", "Indexed"]),
    };
    if mode != "Indexed" {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(n) = number(spec, field).filter(|_| matches!(mode, "" | "NonIndexed")) {
                errors.push(Error::invalid(path.child(field), n, "requires indexed completion mode"));
            }
        }
        return errors;
    }
    if completions.is_none() {
        errors.push(Error::required(path.child("completions"), "when completion mode is Indexed"));
    }
    if let Some(n) = parallelism.filter(|n| *n > 100_000) {
        let detail = "must be less than or equal to 100000 when completion mode is Indexed";
        errors.push(Error::invalid(path.child("parallelism"), n, detail));
    }
    if let (Some(failed), Some(completions)) = (failed, completions)
        && failed > completions
    {
        let detail = "must be less than or equal to completions";
        errors.push(Error::invalid(path.child("maxFailedIndexes"), failed, detail));
    }
    errors
}

fn replacement_policy(spec: &Value, path: &Path) -> Errors {
    match get(spec, "podReplacementPolicy").and_then(Value::as_str) {
        None => Errors::new(),
        Some(policy) if get(spec, "podFailurePolicy").is_some() => supported(policy, path, &["Failed"]),
        Some(policy) => supported(policy, path, &["Failed", "TerminatingOrFailed"]),
    }
}

/// The pods of an indexed job are named after it and their index.
fn host_names(job: &Document, spec: &Value) -> Option<Error> {
    let completions = number(spec, "completions").filter(|n| *n > 0 && text(spec, "completionMode") == "Indexed")?;
    let host = format!("{}-{}", job.name(), completions - 1);
    let detail = format!("will not able to create pod with invalid DNS label: {host}");
    (!names::label(&host).is_empty()).then(|| Error::invalid(Path::new("metadata").child("name"), job.name(), detail))
}

fn update(spec: &Value, old: &Value, path: &Path) -> Errors {
    let mut errors = completions(spec, old, &path.child("completions"));
    errors.extend(immutable(spec.get("selector"), old.get("selector"), &path.child("selector")));
    errors.extend(template(spec, old, &path.child("template")));
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        errors.extend(immutable(spec.get(field), old.get(field), &path.child(field)));
    }
    errors
}

fn completions(spec: &Value, old: &Value, path: &Path) -> Errors {
    let (now, before) = (number(spec, "completions"), number(old, "completions"));
    if text(spec, "completionMode") != "Indexed" {
        return immutable(spec.get("completions"), old.get("completions"), path);
    }
    match now {
        Some(n) if now != before && now != number(spec, "parallelism") => {
            vec![Error::invalid(path.clone(), n, "can only be modified in tandem with spec.parallelism")]
        }
        _ => Errors::new(),
    }
}

/// A template stays as it is; while the job is suspended, resources and where its pods may run can change.
fn template(spec: &Value, old: &Value, path: &Path) -> Errors {
    let mut before = get(old, "template").cloned().unwrap_or_default();
    let now = get(spec, "template").unwrap_or(&Value::Null);
    if flag(old, "suspend") {
        let at = |pointer: &str| now.pointer(pointer).cloned();
        if let Some(pod) = before.get_mut("spec") {
            for field in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
                replace(pod, field, at(&format!("/spec/{field}")));
            }
            for kind in ["containers", "initContainers"] {
                for (i, container) in items_mut(pod, kind).enumerate() {
                    replace(container, "resources", at(&format!("/spec/{kind}/{i}/resources")));
                }
            }
        }
        for field in ["labels", "annotations"] {
            if let Some(meta) = before.get_mut("metadata") {
                replace(meta, field, at(&format!("/metadata/{field}")));
            }
        }
    }
    immutable(Some(now), Some(&before), path)
}

fn status(new: &Document, old: &Document) -> Errors {
    let path = Path::new("status");
    let nothing = Value::Null;
    let (now, before) = (new.at("/status").unwrap_or(&nothing), old.at("/status").unwrap_or(&nothing));
    let mut errors = counts(now, &["active", "succeeded", "failed", "ready", "terminating"], &path);
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if cell::is_true(old, kind) && !cell::is_true(new, kind) {
            let detail = format!("cannot disable the terminal {kind}=True condition");
            let conditions = now.get("conditions").cloned().unwrap_or_default();
            errors.push(Error::invalid(path.child("conditions"), conditions, detail));
        }
    }
    for (field, what) in [("failed", "failed"), ("succeeded", "succeeded")] {
        let n = number(now, field).unwrap_or_default();
        if n < number(before, field).unwrap_or_default() {
            errors.push(Error::invalid(path.child(field), n, format!("cannot decrease the {what} counter")));
        }
    }
    errors
}
