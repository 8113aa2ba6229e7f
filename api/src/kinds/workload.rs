//! What the kinds that make pods from a template share.

use serde_json::Value;

use super::{Change, Operation, pod_spec};
use crate::field::{Error, Errors, Path};
use crate::tree::{get, map, number, text};
use crate::validation::labels::label_selector;
use crate::validation::{non_negative, one_of};
use crate::{Document, LabelSelector};

/// Labels of the template that the selector does not match.
const MISMATCH: &str = "`selector` does not match template `labels`";

/// The spec's selector: there (where `required`), sound, and not empty.
pub(super) fn selector(spec: &Value, path: &Path, required: bool, owner: &str) -> Errors {
    let path = path.child("selector");
    let Some(value) = get(spec, "selector") else {
        return if required { vec![Error::required(path, "")] } else { Errors::new() };
    };
    let mut errors = label_selector(Some(value), &path);
    let expressions = crate::tree::list(value, "matchExpressions").len();
    if map(get(value, "matchLabels")).count() + expressions == 0 {
        errors.push(Error::invalid(path, value.clone(), format!("empty selector is invalid for {owner}")));
    }
    errors
}

/// The template's labels are among those selected. An empty selector is left alone unless `strict`.
pub(super) fn selected(spec: &Value, path: &Path, strict: bool) -> Option<Error> {
    let Ok(selector) = LabelSelector::from_object(get(spec, "selector")) else {
        let value = spec.get("selector").cloned().unwrap_or_default();
        return (!strict).then(|| Error::invalid(path.child("selector"), value, "invalid label selector"));
    };
    let labels = spec.pointer("/template/metadata/labels");
    let value = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
    let nothing = get(spec, "selector").is_none();
    let open = !nothing && selector.is_empty();
    let matches = (open && !strict) || selector.matches(value);
    let path = path.child("template").child("metadata").child("labels");
    (!matches).then(|| Error::invalid(path, labels.cloned().unwrap_or_default(), MISMATCH))
}

/// A template whose pods run for ever.
pub(super) fn lasting_template(spec: &Value, path: &Path, owner: &str) -> Errors {
    let nothing = Value::Null;
    let template = get(spec, "template").unwrap_or(&nothing);
    let path = path.child("template");
    let mut errors = pod_spec::validate_template(template, &path);
    let pod = get(template, "spec").unwrap_or(&nothing);
    let policy = text(pod, "restartPolicy");
    if policy != "Always" {
        let path = path.child("spec").child("restartPolicy");
        errors.push(Error::not_supported(path, policy, &["Always"]));
    }
    if get(pod, "activeDeadlineSeconds").is_some() {
        let detail = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.push(Error::forbidden(path.child("spec").child("activeDeadlineSeconds"), detail));
    }
    errors
}

/// Numbers that are not negative.
pub(super) fn counts(value: &Value, fields: &[&str], path: &Path) -> Errors {
    fields.iter().flat_map(|field| non_negative(number(value, field), &path.child(field))).collect()
}

/// Numbers that are at most another of the same status.
pub(super) fn at_most(status: &Value, fields: &[&str], limit: &str, path: &Path, detail: &str) -> Errors {
    let most = number(status, limit).unwrap_or_default();
    let over = fields.iter().filter_map(|field| Some((field, number(status, field).filter(|n| *n > most)?)));
    over.map(|(field, n)| Error::invalid(path.child(field), n, detail)).collect()
}

/// `collisionCount` only grows.
pub(super) fn collisions(new: &Value, old: &Value, path: &Path) -> Option<Error> {
    let (now, before) = (number(new, "collisionCount"), number(old, "collisionCount")?);
    let path = path.child("collisionCount");
    (now.unwrap_or_default() < before).then(|| Error::invalid(path, now.unwrap_or_default(), "cannot be decremented"))
}

/// A whole number or percentage as one number.
pub(super) fn amount(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::String(text)) => text.trim_end_matches('%').parse().unwrap_or_default(),
        other => other.and_then(Value::as_i64).unwrap_or_default(),
    }
}

/// Warnings about the pods of a template at `pointer`, told when the object is made and when its spec changes. With
/// `named`, its name is the beginning of theirs.
pub(super) fn warnings(new: &Document, change: &Change<'_>, pointer: &str, named: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    match change.old {
        Some(_) if !change.subresource.is_empty() => return warnings,
        Some(old) if old.at("/metadata/generation") == new.at("/metadata/generation") => return warnings,
        _ => {}
    }
    let messages = crate::validation::text::label(new.name());
    if named && change.operation == Operation::Create && !messages.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS \
             label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    let path = pointer.trim_start_matches('/').replace('/', ".");
    warnings.extend(new.at(pointer).map(|template| pod_spec::warnings(template, &path)).unwrap_or_default());
    warnings
}

/// A policy with a default.
pub(super) fn policy(spec: &Value, field: &str, path: &Path, allowed: &[&str]) -> Errors {
    one_of(text(spec, field), &path.child(field), allowed)
}
