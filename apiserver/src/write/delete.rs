//! Delete: preconditions, grace, finalizers, propagation (`k8s.io/apiserver/pkg/registry/generic/registry/store.go`).

use api::{Document, Status, Timestamp, time};
use serde_json::{Value, json};
use store::Txn;

use super::admit::Admission;
use super::machine::{Machine, Stepped, remove, success, unchanged};
use super::options::{DeleteOptions, Propagation};
use super::{Answer, allocate, meta};
use crate::crd::FINALIZER;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a delete does about the time an object is given to end.
enum Grace {
    /// It is deleted, or waits for finalizers only.
    None,
    /// It is marked and somebody else deletes it at the end.
    Marked,
    /// It was marked before and nothing changes.
    Pending,
}

/// Decides a DELETE of one object.
pub(super) fn delete(machine: &mut Machine<'_>, options: &DeleteOptions) -> Stepped<(Txn, Answer)> {
    let (_, old) = machine.current()?;
    let admission = machine.admission("delete", old.name());
    end(machine, options, Some(&admission))
}

/// The same; `admission` is `None` where something else was admitted in its place.
pub(super) fn end(
    machine: &mut Machine<'_>,
    options: &DeleteOptions,
    admission: Option<&Admission>,
) -> Stepped<(Txn, Answer)> {
    let (key, old) = machine.current()?;
    if options.unsafely {
        return Err(readable(machine, &key).into());
    }
    preconditions(machine, &old, options)?;
    let mut new = old.clone();
    let grace = grace(machine, &mut new, options);
    if matches!(grace, Grace::Pending) {
        return Ok((Txn::default(), machine.answer(200, old)));
    }
    if let Some(admission) = admission {
        machine.admit(admission, &mut Document::default(), Some(&old))?;
    }
    let behaviour = machine.request.call.row.behaviour;
    finalizers(&mut new, options, behaviour.orphans.is_some());
    if !machine.request.collection {
        machine.warnings.extend(options.remark(&behaviour));
    }
    if behaviour.cleans_up {
        cleans_up(machine, &mut new);
    }
    let held =
        new.finalizers().next().is_some() || (behaviour.spec_finalizers && !new.list_at("/spec/finalizers").is_empty());
    if matches!(grace, Grace::None) && held && !new.deleting() {
        meta::mark_deleting(&mut new, machine.now(), 0);
    }
    if behaviour.spec_finalizers && held {
        terminating(&mut new);
    }
    // Watchers see a pod that gets no time deleting before it is gone.
    if matches!(grace, Grace::None) && behaviour.graceful && !new.deleting() {
        meta::mark_deleting(&mut new, machine.now(), 0);
        machine.goes_on = true;
    }
    if matches!(grace, Grace::Marked) || held || machine.goes_on {
        return marked(machine, &key, &old, new, options);
    }
    let mut txn = Txn { compare: vec![unchanged(&key, &old)], ops: vec![remove(&key)] };
    if behaviour.allocates {
        allocate::release(machine, &old, &mut txn);
    }
    Ok((txn, gone(machine, new)))
}

fn marked(
    machine: &mut Machine<'_>,
    key: &str,
    old: &Document,
    new: Document,
    options: &DeleteOptions,
) -> Stepped<(Txn, Answer)> {
    let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
    if new == *old {
        return Ok((Txn::default(), machine.answer(code, new)));
    }
    let txn = Txn { compare: vec![unchanged(key, old)], ops: vec![machine.put(key, &new)?] };
    Ok((txn, machine.answer(code, new)))
}

/// A deleted namespace is terminating from the start, and nobody graces it.
fn terminating(namespace: &mut Document) {
    namespace.set("/status/phase", "Terminating");
    namespace.remove("/metadata/deletionGracePeriodSeconds");
}

/// A deleted definition waits until its objects are gone
/// (`k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition/etcd.go`).
fn cleans_up(machine: &Machine<'_>, definition: &mut Document) {
    if definition.deleting() {
        return;
    }
    definition.set("/metadata/deletionTimestamp", time::rfc3339(machine.now()));
    let mut finalizers: Vec<String> = definition.finalizers().map(str::to_owned).collect();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
        definition.set("/metadata/finalizers", finalizers);
    }
    let mut conditions = definition.list_at("/status/conditions").to_vec();
    conditions.push(json!({
        "type": "Terminating",
        "status": "True",
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        "lastTransitionTime": time::rfc3339(machine.now()),
    }));
    definition.set("/status/conditions", conditions);
}

/// What a delete that is complete answers.
fn gone(machine: &Machine<'_>, object: Document) -> Answer {
    let row = &machine.request.call.row;
    if row.behaviour.returns_deleted {
        return machine.answer(200, object);
    }
    let mut details = json!({"name": object.name(), "kind": row.plural, "uid": object.uid()});
    if let (false, Some(details)) = (row.group.is_empty(), details.as_object_mut()) {
        details.insert("group".into(), row.group.clone().into());
    }
    let mut answer = success(200, details);
    if let super::Shown::Status(Value::Object(status)) = &mut answer.shown {
        status.remove("code");
    }
    answer
}

/// Only what cannot be read is deleted without a look; nothing in our store is so.
fn readable(machine: &Machine<'_>, key: &str) -> Box<Status> {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: unsafe deletion is \
         not allowed because the object is decodable from storage"
    );
    Status::conflict(&machine.request.call.resource(), &machine.object_name().name, &why)
}

fn preconditions(machine: &Machine<'_>, old: &Document, options: &DeleteOptions) -> Stepped<()> {
    let row = &machine.request.call.row;
    if row.behaviour.spec_finalizers {
        return same_namespace(machine, old, options);
    }
    // Upstream names the kind here where others name the plural.
    let resource = api::GroupResource::new(&row.group, &row.kind);
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != old.uid()) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            old.uid()
        );
        return Err(Status::conflict(&resource, old.name(), &why).into());
    }
    let current = old.resource_version();
    if let Some(version) = options.resource_version.as_deref().filter(|version| *version != current) {
        let why = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({current}). The object might have been modified"
        );
        return Err(Status::conflict(&resource, old.name(), &why).into());
    }
    Ok(())
}

/// The preconditions of a namespace's deletion, which has words of its own.
fn same_namespace(machine: &Machine<'_>, old: &Document, options: &DeleteOptions) -> Stepped<()> {
    let pairs =
        [("UID", &options.uid, old.uid()), ("ResourceVersion", &options.resource_version, old.resource_version())];
    for (what, given, there) in pairs {
        if let Some(given) = given.as_deref().filter(|given| *given != there) {
            let why = format!("Precondition failed: {what} in precondition: {given}, {what} in object meta: {there}");
            return Err(Status::conflict(&machine.request.call.resource(), old.name(), &why).into());
        }
    }
    Ok(())
}

/// Applies the grace period to an object that has one.
fn grace(machine: &Machine<'_>, object: &mut Document, options: &DeleteOptions) -> Grace {
    if !machine.request.call.row.behaviour.graceful {
        return Grace::None;
    }
    if object.deleting() {
        return shorten(object, options, machine.now());
    }
    let seconds = grace_of(object, options);
    if seconds == 0 {
        return Grace::None;
    }
    meta::mark_deleting(object, later(machine.now(), seconds), seconds);
    Grace::Marked
}

/// A pod that nobody runs needs no time (`pkg/registry/core/pod/strategy.go`, CheckGracefulDelete).
fn grace_of(pod: &Document, options: &DeleteOptions) -> i64 {
    let unscheduled = pod.str_at("/spec/nodeName").is_empty();
    if unscheduled || matches!(pod.str_at("/status/phase"), "Failed" | "Succeeded") {
        return 0;
    }
    options.grace_seconds.or_else(|| pod.i64_at("/spec/terminationGracePeriodSeconds")).map_or(30, |s| s.max(0))
}

fn shorten(object: &mut Document, options: &DeleteOptions, now: Timestamp) -> Grace {
    let current = object.i64_at("/metadata/deletionGracePeriodSeconds").unwrap_or_default();
    if current == 0 {
        return Grace::None;
    }
    let Some(mut wanted) = options.grace_seconds.filter(|wanted| *wanted < current) else { return Grace::Pending };
    if wanted == 0 {
        object.set("/metadata/deletionTimestamp", time::rfc3339(now));
        object.set("/metadata/deletionGracePeriodSeconds", 0);
        return Grace::None;
    }
    let planned = time::parse(object.str_at("/metadata/deletionTimestamp")).unwrap_or(now);
    let mut at = later(planned, wanted - current);
    if at < now {
        (at, wanted) = (now, 1);
    }
    object.set("/metadata/deletionTimestamp", time::rfc3339(at));
    object.set("/metadata/deletionGracePeriodSeconds", wanted);
    Grace::Marked
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(time)
}

/// Garbage collection's finalizers, as the options want them.
fn finalizers(object: &mut Document, options: &DeleteOptions, orphans: bool) {
    let wanted = match (options.orphan_dependents, options.propagation) {
        (Some(true), _) | (None, Some(Propagation::Orphan)) => Some(ORPHAN),
        (None, Some(Propagation::Foreground)) => Some(FOREGROUND),
        (Some(false), _) | (None, Some(Propagation::Background)) => None,
        (None, None) if orphans && object.finalizers().all(|f| f != FOREGROUND) => Some(ORPHAN),
        (None, None) => return,
    };
    let before: Vec<String> = object.finalizers().map(str::to_owned).collect();
    let mut after: Vec<String> =
        before.iter().filter(|f| !matches!(f.as_str(), ORPHAN | FOREGROUND)).cloned().collect();
    after.extend(wanted.map(str::to_owned));
    if after.is_empty() {
        object.remove("/metadata/finalizers");
    } else if after != before {
        object.set("/metadata/finalizers", after);
    }
}
