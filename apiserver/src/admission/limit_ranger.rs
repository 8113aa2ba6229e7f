//! LimitRanger: a namespace's defaults and bounds for what containers, pods and claims ask for.

use std::collections::BTreeSet;

use api::quota::amounts::read as amounts;
use api::quota::{Amounts, pod_total};
use api::{Document, GroupResource, Quantity, StatusResult};
use serde_json::{Map, Value, json};

use super::{CONTAINERS, Context, Plugin};
use crate::authz::aggregate;

const ANNOTATION: &str = "/metadata/annotations/kubernetes.io~1limit-ranger";

pub(super) struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate(&self, pod: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        if context.verb() == "create" && context.is("", "pods") {
            for range in ranges(context) {
                defaults(pod, &range);
            }
        }
        Ok(())
    }

    fn validate(&self, object: &Document, context: &Context<'_>) -> StatusResult<()> {
        let pod = context.verb() == "create" && context.is("", "pods");
        let claim = matches!(context.verb(), "create" | "update") && context.is("", "persistentvolumeclaims");
        if !pod && !claim || context.old.is_some_and(Document::deleting) {
            return Ok(());
        }
        for range in ranges(context) {
            let errors = if pod { pod_errors(object, &range) } else { claim_errors(object, &range) };
            if !errors.is_empty() {
                return Err(context.forbidden(object, aggregate(&errors)));
            }
        }
        Ok(())
    }
}

fn ranges(context: &Context<'_>) -> Vec<Document> {
    context.view.list(&GroupResource::new("", "limitranges"), Some(context.namespace()))
}

fn limits<'a>(range: &'a Document, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    range.list_at("/spec/limits").iter().filter(move |limit| limit.get("type").is_some_and(|t| t == kind))
}

/// Fills in what containers do not say, and notes it in an annotation.
fn defaults(pod: &mut Document, range: &Document) {
    let (mut requests, mut most) = (Map::new(), Map::new());
    for limit in limits(range, "Container") {
        for (key, into) in [("defaultRequest", &mut requests), ("default", &mut most)] {
            into.extend(limit.get(key).and_then(Value::as_object).cloned().unwrap_or_default());
        }
    }
    let mut notes = Vec::new();
    for (list, kind) in CONTAINERS.iter().rev().zip(["container", "init container"]) {
        let Some(containers) = pod.at_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            for (key, word, given) in [("requests", "request", &requests), ("limits", "limit", &most)] {
                let set = fill(container, key, given);
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {kind} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        pod.set(ANNOTATION, format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

fn fill(container: &mut Value, key: &str, given: &Map<String, Value>) -> Vec<String> {
    let Some(container) = container.as_object_mut().filter(|_| !given.is_empty()) else { return Vec::new() };
    let resources = container.entry("resources").or_insert_with(|| json!({}));
    let Some(own) = resources.as_object_mut().map(|r| r.entry(key).or_insert_with(|| json!({}))) else {
        return Vec::new();
    };
    let Some(own) = own.as_object_mut() else { return Vec::new() };
    let missing: BTreeSet<String> = given.keys().filter(|name| !own.contains_key(*name)).cloned().collect();
    for name in &missing {
        own.insert(name.clone(), given.get(name).cloned().unwrap_or_default());
    }
    missing.into_iter().collect()
}

fn pod_errors(pod: &Document, range: &Document) -> Vec<String> {
    let mut errors = Vec::new();
    for limit in limits(range, "Container") {
        for container in CONTAINERS.iter().rev().flat_map(|list| pod.list_at(list)) {
            let of = |key: &str| amounts(container.pointer(&format!("/resources/{key}")));
            errors.extend(bounds("Container", limit, &of("requests"), &of("limits")));
        }
    }
    for limit in limits(range, "Pod") {
        errors.extend(bounds("Pod", limit, &pod_total(pod, "requests"), &pod_total(pod, "limits")));
    }
    errors
}

fn claim_errors(claim: &Document, range: &Document) -> Vec<String> {
    let asked = amounts(claim.at("/spec/resources/requests"));
    let mut errors = Vec::new();
    for limit in limits(range, "PersistentVolumeClaim") {
        for (name, least) in amounts(limit.get("min")) {
            errors.extend(minimum("PersistentVolumeClaim", &name, &least, &asked, &Amounts::new()));
        }
        for (name, most) in amounts(limit.get("max")) {
            errors.extend(match asked.get(&name) {
                None => {
                    Some(format!("maximum {name} usage per PersistentVolumeClaim is {most}.  No request is specified"))
                }
                Some(is) if *is > most => {
                    Some(format!("maximum {name} usage per PersistentVolumeClaim is {most}, but request is {is}"))
                }
                Some(_) => None,
            });
        }
    }
    errors
}

fn bounds(kind: &str, limit: &Value, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, least) in amounts(limit.get("min")) {
        errors.extend(minimum(kind, &name, &least, requests, limits));
    }
    for (name, most) in amounts(limit.get("max")) {
        errors.extend(maximum(kind, &name, &most, requests, limits));
    }
    for (name, most) in amounts(limit.get("maxLimitRequestRatio")) {
        errors.extend(ratio(kind, &name, &most, requests, limits));
    }
    errors
}

fn minimum(kind: &str, name: &str, least: &Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let begin = format!("minimum {name} usage per {kind} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{begin}.  No request is specified")),
        (Some(request), _) if request < least => Some(format!("{begin}, but request is {request}")),
        (_, Some(limit)) if limit < least => Some(format!("{begin}, but limit is {limit}")),
        _ => None,
    }
}

fn maximum(kind: &str, name: &str, most: &Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let begin = format!("maximum {name} usage per {kind} is {most}");
    match (requests.get(name), limits.get(name)) {
        (_, None) => Some(format!("{begin}.  No limit is specified")),
        (_, Some(limit)) if limit > most => Some(format!("{begin}, but limit is {limit}")),
        (Some(request), _) if request > most => Some(format!("{begin}, but request is {request}")),
        _ => None,
    }
}

fn ratio(kind: &str, name: &str, most: &Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let begin = format!("{name} max limit to request ratio per {kind} is {most}, but");
    let Some(request) = requests.get(name).filter(|r| !r.is_zero()) else {
        return Some(format!("{begin} no request is specified or request is 0"));
    };
    let Some(limit) = limits.get(name).filter(|l| !l.is_zero()) else {
        return Some(format!("{begin} no limit is specified or limit is 0"));
    };
    let is = limit.approximate() / request.approximate();
    (is > most.approximate()).then(|| format!("{begin} provided ratio is {is:.6}"))
}
