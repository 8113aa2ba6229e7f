//! Binding and eviction of pods.

use api::{Document, GroupVersionKind, ObjectName, Schema, Status, time};
use serde_json::{Value, json};
use store::Txn;

use super::machine::{Machine, Stepped, put, success, unchanged};
use super::options::DeleteOptions;
use super::{Answer, body, delete};

/// Puts a pod on a node (`pkg/registry/core/pod/storage`, BindingREST).
pub(super) fn bind(machine: &mut Machine<'_>) -> Stepped<(Txn, Answer)> {
    let mut binding = decode(machine, "", "v1", "Binding")?;
    let pod_name = match machine.object_name().name.as_str() {
        "" => binding.name().to_owned(),
        name if name == binding.name() || binding.name().is_empty() => name.to_owned(),
        _ => return Err(Status::bad_request("name in URL does not match name in Binding object").into()),
    };
    check(&binding)?;
    let (key, old) = pod(machine, &pod_name)?;
    let conflict = |why: &str| {
        let resource = api::GroupResource::new("", "pods/binding");
        Status::conflict(&resource, &pod_name, why)
    };
    let uid = binding.uid();
    if !uid.is_empty() && uid != old.uid() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old.uid());
        return Err(conflict(&why).into());
    }
    if old.deleting() {
        return Err(conflict(&format!("pod {pod_name} is being deleted, cannot be assigned to a host")).into());
    }
    let node = old.str_at("/spec/nodeName");
    if !node.is_empty() {
        return Err(conflict(&format!("pod {pod_name} is already assigned to node {node:?}")).into());
    }
    let gates: Vec<&str> =
        old.list_at("/spec/schedulingGates").iter().filter_map(|g| g.get("name")?.as_str()).collect();
    if !gates.is_empty() {
        return Err(conflict(&format!("pod {pod_name} has non-empty .spec.schedulingGates")).into());
    }
    let admission = machine.admission_of("create", &pod_name, &binding_kind());
    machine.admit(&admission, &mut binding, None)?;
    let new = assigned(&binding, &old, machine.now());
    let txn = Txn { compare: vec![unchanged(&key, &old)], ops: vec![put(&key, &new, 0)] };
    Ok((txn, success(0, Value::Null)))
}

fn check(binding: &Document) -> Stepped<()> {
    let mut errors = api::field::Errors::new();
    let kind = binding.str_at("/target/kind");
    if !matches!(kind, "" | "Node") {
        let path = api::field::Path::new("target").child("kind");
        errors.push(api::field::Error::not_supported(path, kind, &["Node", "<empty>"]));
    }
    if binding.str_at("/target/name").is_empty() {
        errors.push(api::field::Error::required(api::field::Path::new("target").child("name"), ""));
    }
    match errors.first() {
        // Upstream returns the bare error here, which becomes a 500.
        Some(error) => Err(Status::failure(500, "", error.to_string()).into()),
        None => Ok(()),
    }
}

fn assigned(binding: &Document, old: &Document, now: api::Timestamp) -> Document {
    let mut new = old.clone();
    new.set("/spec/nodeName", binding.str_at("/target/name"));
    new.remove("/status/nominatedNodeName");
    for (field, pairs) in
        [("annotations", binding.annotations().collect::<Vec<_>>()), ("labels", binding.labels().collect())]
    {
        for (key, value) in pairs {
            let key = key.replace('~', "~0").replace('/', "~1");
            new.set(&format!("/metadata/{field}/{key}"), value);
        }
    }
    scheduled(&mut new, now);
    new
}

/// The condition PodScheduled becomes true.
fn scheduled(pod: &mut Document, now: api::Timestamp) {
    let mut conditions = pod.list_at("/status/conditions").to_vec();
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": time::rfc3339(now)
    });
    let is = |c: &Value| c.get("type").and_then(Value::as_str) == Some("PodScheduled");
    match conditions.iter_mut().find(|c| is(c)) {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
    pod.set("/status/conditions", conditions);
}

fn pod(machine: &Machine<'_>, name: &str) -> Stepped<(String, Document)> {
    let object = ObjectName { namespace: machine.object_name().namespace.clone(), name: name.into() };
    let key = format!("/registry/pods/{}/{}", object.namespace, object.name);
    let found = machine.snapshot.object(&key);
    let found = found.ok_or_else(|| Status::not_found(&api::GroupResource::new("", "pods"), name))?;
    Ok((key, found))
}

fn binding_kind() -> GroupVersionKind {
    GroupVersionKind { group: String::new(), version: "v1".into(), kind: "Binding".into() }
}

fn decode(machine: &mut Machine<'_>, group: &str, version: &str, kind: &str) -> Stepped<Document> {
    let kind = GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() };
    let schema = Schema::of_kind(&kind.group, &kind.version, &kind.kind).ok_or_else(Status::page_not_found)?;
    let mut object = body::decode(machine, &schema, &kind)?;
    body::namespace(machine, &mut object)?;
    Ok(object)
}

/// The body of an eviction, in the version it names: the older one has the same fields.
fn decode_eviction(machine: &mut Machine<'_>) -> Stepped<Document> {
    let request = machine.request;
    let named = api::decode::kind(&request.body, request.format, "Eviction")?;
    if named.group != "policy" || named.version != "v1beta1" || named.kind != "Eviction" {
        return decode(machine, "policy", "v1", "Eviction");
    }
    let body = api::decode::plain(&request.body, request.format).map_err(Status::bad_request)?;
    let mut eviction = Document::new(body).unwrap_or_default();
    eviction.set("/apiVersion", "policy/v1");
    body::namespace(machine, &mut eviction)?;
    Ok(eviction)
}

/// Deletes a pod if no disruption budget forbids it (`pkg/registry/core/pod/storage/eviction.go`).
pub(super) fn evict(machine: &mut Machine<'_>) -> Stepped<(Txn, Answer)> {
    let mut eviction = decode_eviction(machine)?;
    if eviction.name() != machine.object_name().name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object").into());
    }
    let kind = GroupVersionKind { group: "policy".into(), version: "v1".into(), kind: "Eviction".into() };
    let admission = machine.admission_of("create", &machine.object_name().name, &kind);
    machine.admit(&admission, &mut eviction, None)?;
    let (_, pod) = machine.current()?;
    let mut txn = Txn::default();
    let phase = pod.str_at("/status/phase");
    let free = pod.deleting() || matches!(phase, "Succeeded" | "Failed" | "Pending");
    if !free {
        charge_budget(machine, &pod, &mut txn)?;
    }
    let options = delete_options(&eviction);
    let (deleted, _) = delete::end(machine, &options, None)?;
    txn.compare.extend(deleted.compare);
    txn.ops.extend(deleted.ops);
    let mut txn = txn;
    if eviction.list_at("/deleteOptions/dryRun").iter().any(|v| v == "All") {
        txn = Txn::default();
    }
    Ok((txn, success(201, Value::Null)))
}

fn delete_options(eviction: &Document) -> DeleteOptions {
    let text = |pointer: &str| eviction.at(pointer).and_then(Value::as_str).map(str::to_owned);
    DeleteOptions {
        grace_seconds: eviction.i64_at("/deleteOptions/gracePeriodSeconds"),
        uid: text("/deleteOptions/preconditions/uid"),
        resource_version: text("/deleteOptions/preconditions/resourceVersion"),
        ..DeleteOptions::default()
    }
}

/// Takes one allowed disruption from the budget that selects the pod, in the same transaction.
fn charge_budget(machine: &Machine<'_>, pod: &Document, txn: &mut Txn) -> Stepped<()> {
    let resource = api::GroupResource::new("policy", "poddisruptionbudgets");
    let budgets = machine.snapshot.view().list(&resource, Some(pod.namespace()));
    let selects =
        |budget: &&Document| api::LabelSelector::from_object(budget.at("/spec/selector")).is_ok_and(|s| s.selects(pod));
    let mut matching = budgets.iter().filter(selects);
    let Some(budget) = matching.next() else { return Ok(()) };
    if matching.next().is_some() {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::failure(500, "", why).into());
    }
    let key = format!("/registry/poddisruptionbudgets/{}/{}", budget.namespace(), budget.name());
    let current = machine.snapshot.object(&key).unwrap_or_else(|| budget.clone());
    let allowed = current.i64_at("/status/disruptionsAllowed").unwrap_or_default();
    if allowed <= 0 {
        return Err(refused(&current).into());
    }
    let mut charged = current.clone();
    charged.set("/status/disruptionsAllowed", allowed - 1);
    let at = pod.name().replace('~', "~0").replace('/', "~1");
    charged.set(&format!("/status/disruptedPods/{at}"), time::rfc3339(machine.now()));
    txn.compare.push(unchanged(&key, &current));
    txn.ops.push(put(&key, &charged, 0));
    Ok(())
}

fn refused(budget: &Document) -> Box<Status> {
    let desired = budget.i64_at("/status/desiredHealthy").unwrap_or_default();
    let healthy = budget.i64_at("/status/currentHealthy").unwrap_or_default();
    let message =
        format!("The disruption budget {} needs {desired} healthy pods and has {healthy} currently", budget.name());
    let mut status =
        Status::failure(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = api::status::Cause { reason: "DisruptionBudget".into(), message, field: String::new() };
    status.details = Some(api::status::Details { causes: vec![cause], ..api::status::Details::default() });
    status
}
