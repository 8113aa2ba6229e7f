//! The metadata every object has (`k8s.io/apiserver/pkg/registry/rest/{create,update}.go`).

use api::{Document, Timestamp, time};
use serde_json::Value;

use super::machine::{Machine, Stepped};
use super::{Known, Snapshot};
use api::ObjectName;

/// So many names are tried for one generateName.
const MAX_NAMES: usize = 8;
/// A generated name keeps so much of its base (`k8s.io/apiserver/pkg/storage/names`).
const MAX_BASE: usize = 58;

/// Fills in what the server gives a new object.
pub(super) fn new_object(machine: &mut Machine<'_>, object: &mut Document) -> Stepped<()> {
    let row = std::sync::Arc::clone(&machine.request.call.row);
    for gone in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        object.remove(&format!("/metadata/{gone}"));
    }
    object.set("/metadata/creationTimestamp", time::rfc3339(machine.now()));
    object.set("/metadata/uid", machine.entropy.uuid());
    if object.name().is_empty() && !object.str_at("/metadata/generateName").is_empty() {
        let name = generate(machine, object)?;
        object.set("/metadata/name", name);
    }
    if machine.version().subresource("status").is_some() && !row.strategy.keeps_status_on_create() {
        object.remove("/status");
    }
    if row.strategy.has_generation() {
        object.set("/metadata/generation", 1);
    }
    Ok(())
}

fn generate(machine: &mut Machine<'_>, object: &Document) -> Stepped<String> {
    let base = object.str_at("/metadata/generateName");
    let base: String = base.chars().take(MAX_BASE).collect();
    let mut name = String::new();
    for _ in 0..MAX_NAMES {
        name = format!("{base}{}", machine.entropy.name_suffix());
        let object = ObjectName { namespace: object.namespace().into(), name: name.clone() };
        let Some(key) = machine.request.call.row.key(&object) else { break };
        if taken(machine.snapshot, &key) {
            continue;
        }
        break;
    }
    Ok(name)
}

fn taken(snapshot: &dyn Snapshot, key: &str) -> bool {
    snapshot.object(key).is_some() || snapshot.key(key) == Known::Taken
}

/// Carries over what an update may not change.
pub(super) fn carry_over(machine: &Machine<'_>, new: &mut Document, old: &Document) {
    if new.uid().is_empty() {
        new.set("/metadata/uid", old.uid());
    }
    for kept in ["creationTimestamp", "generation"] {
        let pointer = format!("/metadata/{kept}");
        match old.at(&pointer) {
            Some(value) => new.set(&pointer, value.clone()),
            None => drop(new.remove(&pointer)),
        }
    }
    // These may be left out; what the old object does not have is refused by the check of its metadata.
    if let Some(time) = old.at("/metadata/deletionTimestamp") {
        new.set("/metadata/deletionTimestamp", time.clone());
    }
    let grace = "/metadata/deletionGracePeriodSeconds";
    if let (Some(seconds), None) = (old.at(grace), new.at(grace)) {
        new.set(grace, seconds.clone());
    }
    new.remove("/metadata/selfLink");
    parts(machine, new, old);
}

/// The main resource keeps the status, the status resource everything else; generation counts changes outside both.
fn parts(machine: &Machine<'_>, new: &mut Document, old: &Document) {
    let row = &machine.request.call.row;
    match machine.request.subresource() {
        "" if machine.version().subresource("status").is_some() => match old.at("/status") {
            Some(status) => new.set("/status", status.clone()),
            None => drop(new.remove("/status")),
        },
        "status" => {
            let status = new.at("/status").cloned();
            let metadata = new.at("/metadata").cloned();
            let mut kept = old.clone();
            put_back(&mut kept, "/status", status);
            put_back(&mut kept, "/metadata", metadata);
            *new = kept;
        }
        _ => {}
    }
    if row.strategy.has_generation() && machine.request.subresource() != "status" && !outside(new).eq(outside(old)) {
        let generation = old.i64_at("/metadata/generation").unwrap_or_default();
        new.set("/metadata/generation", generation + 1);
    }
}

fn put_back(document: &mut Document, pointer: &str, value: Option<Value>) {
    match value {
        Some(value) => document.set(pointer, value),
        None => drop(document.remove(pointer)),
    }
}

/// What is neither metadata nor status.
fn outside(document: &Document) -> impl Iterator<Item = (&String, &Value)> {
    let fields = document.value().as_object().into_iter().flatten();
    fields.filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
}

/// Marks an object as being deleted.
pub(super) fn mark_deleting(object: &mut Document, at: Timestamp, grace_seconds: i64) {
    object.set("/metadata/deletionTimestamp", time::rfc3339(at));
    object.set("/metadata/deletionGracePeriodSeconds", grace_seconds);
    if let Some(generation) = object.i64_at("/metadata/generation").filter(|g| *g > 0) {
        object.set("/metadata/generation", generation + 1);
    }
}

/// Drops owner references that stand twice; one warning names their uids.
pub(super) fn dedup_owners(object: &mut Document, warnings: &mut Vec<String>) {
    let Some(Value::Array(owners)) = object.at_mut("/metadata/ownerReferences") else { return };
    let mut seen: Vec<Value> = Vec::new();
    let mut uids: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        match seen.contains(&owner) {
            true => uids.push(owner.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned()),
            false => seen.push(owner),
        }
    }
    *owners = seen;
    if !uids.is_empty() {
        warnings.push(format!("{DUPLICATE_OWNERS}{}", uids.join(", ")));
    }
}

const DUPLICATE_OWNERS: &str = ".metadata.ownerReferences contains duplicate entries; API server dedups owner \
    references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) \
    observed: ";
