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
    let (key, stored) = machine.current()?;
    let live = machine.shown(stored.clone());
    let call = &machine.request.call;
    let current = of(call, &live).ok_or_else(Status::page_not_found)?;
    let kind = scale_kind();
    let schema = Schema::of_kind(&kind.group, &kind.version, &kind.kind).ok_or_else(Status::page_not_found)?;
    let mut wanted = match machine.request.verb {
        Verb::Update => {
            let wanted = body::decode(machine, &schema, &kind)?;
            body::name(machine, &wanted)?;
            wanted
        }
        Verb::Patch(patch) => {
            let options = &machine.request.options;
            api::patch::request(&schema, patch, &current, &machine.request.body, options.validation)?.document
        }
        _ => return Err(body::unknown_patch().into()),
    };
    let admission = machine.admission_of("update", wanted.name(), &kind);
    machine.mutate(&admission, &mut wanted, Some(&current))?;
    let replicas = wanted.i64_at("/spec/replicas").unwrap_or_default();
    if replicas < 0 {
        let path = api::field::Path::new("spec.replicas");
        let error = api::field::Error::invalid(path, replicas, "must be greater than or equal to 0");
        return Err(Status::invalid(&kind.group_kind(), wanted.name(), &[error]).into());
    }
    machine.validate(&admission, &wanted, Some(&current))?;
    let mut new = live.clone();
    new.set(&pointer(&paths(call).spec_replicas), replicas);
    match wanted.resource_version() {
        "" => drop(new.remove("/metadata/resourceVersion")),
        version => new.set("/metadata/resourceVersion", version),
    }
    api::apply::update(&machine.version().schema, Some(&live), &mut new, &create::writer(machine));
    let (txn, answer) = change::replace(machine, &key, &stored, new, None)?;
    let Shown::Object(object) = answer.shown else { return Err(Status::internal("no object").into()) };
    let scale = of(&machine.request.call, &object).unwrap_or_default();
    Ok((txn, Answer { code: answer.code, shown: Shown::Object(scale) }))
}
