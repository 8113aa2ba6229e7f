//! The scale subresource: an `autoscaling/v1` Scale in place of the object.

use api::{Document, GroupVersionKind, Schema, Status};
use serde_json::{Value, json};
use store::Txn;

use super::machine::{Machine, Stepped};
use super::{Answer, Shown, Verb, body, change, create};
use crate::call::Call;
use crate::row::ScalePaths;

fn paths(call: &Call) -> ScalePaths {
    let own = call.subresource().and_then(|sub| sub.scale.clone());
    own.unwrap_or_else(|| ScalePaths {
        spec_replicas: ".spec.replicas".into(),
        status_replicas: ".status.replicas".into(),
        selector: None,
        custom: false,
    })
}

fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

/// The scale of an object.
pub(crate) fn of(call: &Call, object: &Document) -> Option<Document> {
    let paths = paths(call);
    let kind = scale_kind();
    let mut metadata = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&format!("/metadata/{field}")) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let number = |path: &str| object.at(&pointer(path)).cloned().unwrap_or_else(|| json!(0));
    let mut scale = Document::new(json!({
        "kind": kind.kind,
        "apiVersion": kind.group_version().to_string(),
        "metadata": metadata,
        "spec": {},
        "status": {"replicas": number(&paths.status_replicas)},
    }))?;
    let wanted = number(&paths.spec_replicas);
    if wanted.as_i64() != Some(0) {
        scale.set("/spec/replicas", wanted);
    }
    let selector = match &paths.selector {
        Some(path) => object.str_at(&pointer(path)).to_owned(),
        None if paths.custom => String::new(),
        None => selector_text(object.at("/spec/selector")),
    };
    if !selector.is_empty() {
        scale.set("/status/selector", selector);
    }
    Some(scale)
}

/// A label selector, or the plain map of a ReplicationController, as text.
fn selector_text(selector: Option<&Value>) -> String {
    let Some(Value::Object(map)) = selector else { return String::new() };
    let structured = map.contains_key("matchLabels") || map.contains_key("matchExpressions");
    if structured {
        return api::LabelSelector::from_object(selector).map(|s| s.to_string()).unwrap_or_default();
    }
    let pairs: Vec<String> = map.iter().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?))).collect();
    pairs.join(",")
}

fn scale_kind() -> GroupVersionKind {
    GroupVersionKind { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into() }
}

/// A PUT or PATCH of a scale.
pub(crate) fn write(machine: &mut Machine<'_>) -> Stepped<(Txn, Answer)> {
    let kind = scale_kind();
    let schema = Schema::of_kind(&kind.group, &kind.version, &kind.kind).ok_or_else(Status::page_not_found)?;
    let sent = match machine.request.verb {
        Verb::Update => {
            let sent = body::decode(machine, &schema, &kind)?;
            body::name(machine, &sent)?;
            Some(sent)
        }
        _ => None,
    };
    let (key, stored) = machine.current()?;
    let live = machine.shown(stored.clone());
    let call = &machine.request.call;
    let current = of(call, &live).ok_or_else(Status::page_not_found)?;
    let mut new = live.clone();
    let mut wanted = match (machine.request.verb.clone(), sent) {
        (_, Some(sent)) => sent,
        (Verb::Patch(patch), _) => {
            let options = &machine.request.options;
            let read = api::patch::request(&schema, patch, &current, &machine.request.body, options.validation)?;
            machine.warnings.extend(read.warnings);
            read.document
        }
        _ => applied(machine, &schema, &current, &mut new)?,
    };
    let admission = machine.admission_of("update", wanted.name(), &kind);
    machine.mutate(&admission, &mut wanted, Some(&current))?;
    let replicas = wanted.i64_at("/spec/replicas").unwrap_or_default();
    if replicas < 0 {
        return Err(negative(machine, &wanted, replicas).into());
    }
    machine.validate(&admission, &wanted, Some(&current))?;
    new.set(&pointer(&paths(call).spec_replicas), replicas);
    match (wanted.resource_version(), call.row.custom) {
        // Without a version it is whichever there is, also where the object itself would be refused so.
        ("", true) => new.set("/metadata/resourceVersion", stored.resource_version()),
        ("", false) => drop(new.remove("/metadata/resourceVersion")),
        (version, _) => new.set("/metadata/resourceVersion", version),
    }
    if !matches!(machine.request.verb, Verb::Apply) {
        api::apply::update(&machine.version().schema, Some(&live), &mut new, &create::writer(machine));
    }
    let (txn, answer) = change::replace(machine, &key, &stored, new, None)?;
    let Shown::Object(object) = answer.shown else { return Err(Status::internal("no object").into()) };
    let scale = of(&machine.request.call, &object).unwrap_or_default();
    Ok((txn, Answer { code: answer.code, shown: Shown::Object(scale) }))
}

/// A scale as an apply wants it; the object gets the managers of that.
fn applied(machine: &Machine<'_>, schema: &Schema, current: &Document, new: &mut Document) -> Stepped<Document> {
    let (call, kind) = (&machine.request.call, scale_kind());
    if call.row.custom {
        let why = "failed to create manager for existing fields: failed to convert live object (/; autoscaling/v1, \
                   Kind=Scale) to proper version: request to convert CR to an invalid group/version: autoscaling/v1";
        return Err(Status::failure(500, "", why).into());
    }
    let config = api::decode::apply_body(&machine.request.body)?;
    if config.api_version() != kind.group_version().to_string() || config.kind() != kind.kind {
        let (group, version) = config.api_version().split_once('/').unwrap_or(("", config.api_version()));
        return Err(
            Status::bad_request(format!("invalid object type: {group}/{version}, Kind={}", config.kind())).into()
        );
    }
    let wanted = api::apply::merge_object(schema, current, &config).map_err(Status::bad_request)?;
    body::name(machine, &wanted)?;
    let own = call.row.group_version(machine.version()).to_string();
    let mut object = Document::new(json!({"apiVersion": own, "kind": call.row.kind})).unwrap_or_default();
    if let Some(replicas) = config.at("/spec/replicas") {
        object.set(&pointer(&paths(call).spec_replicas), replicas.clone());
    }
    let applied = api::apply::apply(&machine.version().schema, Some(&*new), &object, &create::writer(machine));
    *new = applied.map_err(|status| as_of_scale(status, &own))?;
    Ok(wanted)
}

/// A conflict as those see it who know the scale only.
fn as_of_scale(mut status: Box<Status>, own: &str) -> Box<Status> {
    let (from, to) = (format!("using {own}"), format!("using {}", scale_kind().group_version()));
    status.message = status.message.replace(&from, &to);
    for cause in status.details.iter_mut().flat_map(|details| &mut details.causes) {
        cause.message = cause.message.replace(&from, &to);
    }
    status
}

fn negative(machine: &Machine<'_>, wanted: &Document, replicas: i64) -> Box<Status> {
    let row = &machine.request.call.row;
    let paths = paths(&machine.request.call);
    let (kind, path, detail) = match row.custom {
        true => (row.group_kind(), paths.spec_replicas.as_str(), "should be a non-negative integer"),
        false => (scale_kind().group_kind(), "spec.replicas", "must be greater than or equal to 0"),
    };
    let error = api::field::Error::invalid(api::field::Path::new(path), replicas, detail);
    Status::invalid(&kind, wanted.name(), &[error])
}
