//! Update, patch and apply of an object or one of its parts.

use api::kinds::Operation;
use api::validation::object_meta_update;
use api::{Document, Status};
use serde_json::Value;
use store::Txn;

use super::admit::Admission;
use super::machine::{Machine, Stepped, remove, unchanged};
use super::{Answer, Verb, allocate, body, create, meta, quota};
use crate::request::unread_number;

/// Decides a PUT or PATCH.
pub(super) fn change(machine: &mut Machine<'_>) -> Stepped<(Txn, Answer)> {
    let key = machine.key(machine.object_name())?;
    let stored = machine.object(&key)?;
    let live = stored.clone().map(|stored| machine.shown(stored));
    let mut wanted = wanted(machine, live.as_ref())?;
    if matches!(machine.request.verb, Verb::Update) {
        same_uid(machine, &key, wanted.uid(), live.as_ref().map_or("", Document::uid))?;
    }
    machine.complete(&mut wanted);
    match stored {
        None => create::object_of(machine, wanted),
        Some(stored) => {
            if !matches!(machine.request.verb, Verb::Apply) {
                let schema = machine.version().schema.clone();
                api::apply::update(&schema, live.as_ref(), &mut wanted, &create::writer(machine));
            }
            let admission = machine.admission("update", stored.name());
            replace(machine, &key, &stored, wanted, Some(admission))
        }
    }
}

/// The object as the client wants it, in the request's version.
fn wanted(machine: &mut Machine<'_>, live: Option<&Document>) -> Stepped<Document> {
    match machine.request.verb {
        Verb::Update => updated(machine, live),
        Verb::Patch(kind) => {
            let live = live.ok_or_else(|| machine.not_found())?;
            let request = machine.request;
            let schema = &machine.version().schema;
            let decoded = api::patch::request(schema, kind, live, &request.body, request.options.validation)?;
            machine.warnings.extend(decoded.warnings);
            let document = decoded.document;
            body::name(machine, &document)?;
            Ok(document)
        }
        _ => applied(machine, live),
    }
}

fn updated(machine: &mut Machine<'_>, live: Option<&Document>) -> Stepped<Document> {
    let kind = machine.request.call.row.kind_in(machine.version());
    let mut object = body::decode(machine, &machine.version().schema, &kind)?;
    body::name(machine, &object)?;
    body::namespace(machine, &mut object)?;
    meta::dedup_owners(&mut object, &mut machine.warnings);
    let may_create = machine.request.call.row.strategy.create_on_update() && machine.request.subresource().is_empty();
    if live.is_none() && !may_create {
        return Err(machine.not_found().into());
    }
    Ok(object)
}

/// Server-side apply; it creates what is not there.
fn applied(machine: &mut Machine<'_>, live: Option<&Document>) -> Stepped<Document> {
    let request = machine.request;
    if live.is_none() && !request.subresource().is_empty() {
        return Err(machine.not_found().into());
    }
    let config = api::decode::apply_body(&request.body)?;
    if request.options.validation != api::decode::FieldValidation::Ignore {
        strictly_read(machine)?;
    }
    let schema = &machine.version().schema;
    let mut merged = api::apply::apply(schema, live, &config, &create::writer(machine))?;
    body::name(machine, &merged)?;
    body::namespace(machine, &mut merged)?;
    Ok(merged)
}

/// Duplicate keys of an applied body; unknown fields are found by apply itself.
fn strictly_read(machine: &mut Machine<'_>) -> Stepped<()> {
    let request = machine.request;
    let schema = &machine.version().schema;
    let Ok(decoded) = schema.decode(&request.body, api::decode::Format::Yaml, api::decode::FieldValidation::Warn)
    else {
        return Ok(());
    };
    let duplicates: Vec<String> = decoded.warnings.into_iter().filter(|w| w.contains("already set")).collect();
    if duplicates.is_empty() {
        return Ok(());
    }
    if request.options.validation == api::decode::FieldValidation::Strict {
        let listed = duplicates.join("\n  ");
        let why =
            format!("error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  {listed}");
        return Err(Status::bad_request(why).into());
    }
    machine.warnings.extend(duplicates);
    Ok(())
}

/// From the object as it is and the wanted one (in the request's version) to the transaction; `admission` is `None` where
/// something else was admitted in its place.
pub(super) fn replace(
    machine: &mut Machine<'_>,
    key: &str,
    old: &Document,
    mut new: Document,
    admission: Option<Admission>,
) -> Stepped<(Txn, Answer)> {
    let row = std::sync::Arc::clone(&machine.request.call.row);
    row.to_hub(machine.version(), &mut new);
    row.strategy.default(&mut new);
    if let Some(admission) = &admission {
        machine.mutate(admission, &mut new, Some(old))?;
        body::namespace(machine, &mut new)?;
        meta::dedup_owners(&mut new, &mut machine.warnings);
    }
    preconditions(machine, old, &mut new)?;
    if row.behaviour.allocates && machine.request.subresource().is_empty() {
        allocate::assign(machine, &mut new, Some(old))?;
    }
    meta::carry_over(machine, &mut new, old);
    row.strategy.prepare(&mut new, &machine.rules_change(Operation::Update, Some(old)));
    machine.default(&mut new);
    valid(machine, &new, old)?;
    if let Some(admission) = &admission {
        machine.validate(admission, &new, Some(old))?;
    }
    if same(&mut new, old) && !machine.snapshot.stale(key) {
        return Ok((Txn::default(), machine.answer(200, old.clone())));
    }
    let mut txn = Txn { compare: vec![unchanged(key, old)], ops: Vec::new() };
    if row.behaviour.allocates {
        allocate::claim(machine, &new, Some(old), &mut txn);
    }
    if let Some(admission) = &admission {
        quota::charge(machine, admission, &new, Some(old), &mut txn)?;
    }
    match finished(&row.behaviour, &new, old) {
        true => txn.ops.push(remove(key)),
        false => txn.ops.push(machine.put(key, &new)?),
    }
    if finished(&row.behaviour, &new, old) && row.behaviour.allocates {
        allocate::release(machine, &new, &mut txn);
    }
    Ok((txn, machine.answer(200, new)))
}

/// The uid that a PUT names must be that of the object there; upstream's store sees to it.
fn same_uid(machine: &Machine<'_>, key: &str, given: &str, there: &str) -> Stepped<()> {
    if given.is_empty() || given == there {
        return Ok(());
    }
    let key = if machine.request.dry_run() { key.strip_prefix("/registry").unwrap_or(key) } else { key };
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
         UID in precondition: {given}, UID in object meta: {there}"
    );
    Err(Status::conflict(&machine.request.call.resource(), &machine.object_name().name, &why).into())
}

/// The resourceVersion that the client gave must be the current one.
fn preconditions(machine: &Machine<'_>, old: &Document, new: &mut Document) -> Stepped<()> {
    let row = &machine.request.call.row;
    let resource = row.group_resource();
    let given = new.resource_version().to_owned();
    if !given.is_empty()
        && let Err(why) = given.parse::<u64>()
    {
        return Err(Status::failure(500, "", unread_number("ParseUint", &given, &why)).into());
    }
    let none = given.is_empty() || given == "0";
    if none && !row.strategy.unconditional_update() {
        let path = api::field::Path::new("metadata").child("resourceVersion");
        let error = api::field::Error::invalid(path, 0, "must be specified for an update");
        // Upstream names the plural here where others name the kind.
        let named = api::GroupKind { group: row.group.clone(), kind: row.plural.clone() };
        return Err(Status::invalid(&named, old.name(), &[error]).into());
    }
    if !none && given != old.resource_version() {
        return Err(Status::modified(&resource, old.name()).into());
    }
    new.set("/metadata/resourceVersion", old.resource_version());
    Ok(())
}

fn valid(machine: &mut Machine<'_>, new: &Document, old: &Document) -> Stepped<()> {
    let row = &machine.request.call.row;
    let mut errors = object_meta_update(new, old, row.namespaced());
    let change = machine.rules_change(Operation::Update, Some(old));
    errors.extend(row.strategy.validate(new, &change));
    if !errors.is_empty() {
        row.checked_schema(machine.version()).show_values(&mut errors);
        return Err(Status::invalid(&body::kind_of(row, new), new.name(), &errors).into());
    }
    let warnings = row.strategy.warnings(new, &change);
    machine.warnings.extend(warnings);
    Ok(())
}

/// Whether nothing changed, times in managedFields apart; those then stay as they were.
fn same(new: &mut Document, old: &Document) -> bool {
    if same_but_times(new, old) {
        if let Some(managed) = old.at("/metadata/managedFields") {
            new.set("/metadata/managedFields", managed.clone());
        }
        return true;
    }
    false
}

fn same_but_times(new: &Document, old: &Document) -> bool {
    let (new_entries, old_entries) = (new.list_at("/metadata/managedFields"), old.list_at("/metadata/managedFields"));
    equal_but_for(&["managedFields"], new, old)
        && new_entries.len() == old_entries.len()
        && new_entries.iter().zip(old_entries).all(|(new, old)| equal_without(&["time"], Some(new), Some(old)))
}

/// Whether two objects are equal but for some fields of their metadata.
pub(crate) fn equal_but_for(fields: &[&str], new: &Document, old: &Document) -> bool {
    equal_without(&["metadata"], Some(new.value()), Some(old.value()))
        && equal_without(fields, new.at("/metadata"), old.at("/metadata"))
}

fn equal_without(fields: &[&str], a: Option<&Value>, b: Option<&Value>) -> bool {
    let kept = |(key, _): &(&String, &Value)| !fields.contains(&key.as_str());
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => a.iter().filter(kept).eq(b.iter().filter(kept)),
        _ => a == b,
    }
}

/// Whether a deleted object's last hindrance is gone.
pub(super) fn finished(behaviour: &crate::rows::Behaviour, new: &Document, old: &Document) -> bool {
    let spec_done = !behaviour.spec_finalizers || new.list_at("/spec/finalizers").is_empty();
    let grace = old.i64_at("/metadata/deletionGracePeriodSeconds");
    let no_grace = grace.is_none_or(|seconds| seconds == 0);
    new.deleting() && new.finalizers().next().is_none() && no_grace && spec_done
}
