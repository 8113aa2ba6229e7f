//! Create: decode -> default -> managed fields -> mutate -> prepare -> validate -> validating admission -> allocate.

use api::apply::{Writer, default_manager};
use api::kinds::Operation;
use api::validation::object_meta;
use api::{Document, Status};
use store::Txn;

use super::machine::{Machine, Stepped, free};
use super::{Answer, Verb, allocate, body, meta, quota};

/// A POST to the collection.
pub(super) fn create(machine: &mut Machine<'_>) -> Stepped<(Txn, Answer)> {
    let call = &machine.request.call;
    let kind = call.row.kind_in(machine.version());
    let mut object = body::decode(machine, &machine.version().schema, &kind)?;
    body::namespace(machine, &mut object)?;
    meta::dedup_owners(&mut object, &mut machine.warnings);
    machine.complete(&mut object);
    object_of(machine, object)
}

/// Creates a decoded object (in the request's version), whatever verb led here.
pub(super) fn object_of(machine: &mut Machine<'_>, mut object: Document) -> Stepped<(Txn, Answer)> {
    let row = std::sync::Arc::clone(&machine.request.call.row);
    if !matches!(machine.request.verb, Verb::Apply) {
        api::apply::update(&machine.version().schema, None, &mut object, &writer(machine));
    }
    row.to_hub(machine.version(), &mut object);
    row.strategy.default(&mut object);
    let named = match machine.object_name().name.as_str() {
        "" => object.name().to_owned(),
        name => name.to_owned(),
    };
    if row.ending {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::forbidden(&row.group_resource(), &named, why).into());
    }
    let admission = machine.admission("create", &named);
    machine.mutate(&admission, &mut object, None)?;
    body::namespace(machine, &mut object)?;
    meta::dedup_owners(&mut object, &mut machine.warnings);
    meta::new_object(machine, &mut object)?;
    if row.behaviour.allocates {
        allocate::assign(machine, &mut object, None)?;
    }
    if row.behaviour.records_user {
        record_user(machine, &mut object);
    }
    row.strategy.prepare(&mut object, &machine.rules_change(Operation::Create, None));
    machine.default(&mut object);
    valid(machine, &object)?;
    machine.validate(&admission, &object, None)?;
    // Only the store looks at it, and what is no number passes there.
    let versioned = object.resource_version().parse::<u64>().is_ok_and(|version| version != 0);
    if versioned && !machine.request.dry_run() && matches!(machine.request.verb, Verb::Create) {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(Status::failure(500, "", why).into());
    }
    let name = api::ObjectName { namespace: object.namespace().into(), name: object.name().into() };
    let key = machine.key(&name)?;
    if let Some(there) = machine.snapshot.object(&key) {
        return Err(exists(machine, &object, &there).into());
    }
    let mut txn = Txn { compare: vec![free(&key)], ops: Vec::new() };
    if row.behaviour.allocates {
        allocate::claim(machine, &object, None, &mut txn);
    }
    quota::charge(machine, &admission, &object, None, &mut txn)?;
    txn.ops.push(machine.put(&key, &object)?);
    Ok((txn, machine.answer(201, object)))
}

/// Who asked stands in the object (`pkg/registry/certificates/certificates/strategy.go`).
fn record_user(machine: &Machine<'_>, object: &mut Document) {
    let user = machine.request.user();
    for field in ["username", "uid", "groups", "extra"] {
        object.remove(&format!("/spec/{field}"));
    }
    object.set("/spec/username", user.name.as_str());
    if !user.uid.is_empty() {
        object.set("/spec/uid", user.uid.as_str());
    }
    object.set("/spec/groups", user.groups.clone());
    for (key, values) in &user.extra {
        let key = key.replace('~', "~0").replace('/', "~1");
        object.set(&format!("/spec/extra/{key}"), values.clone());
    }
}

/// A generated name that is taken is another failure than a given one.
fn exists(machine: &Machine<'_>, object: &Document, there: &Document) -> Box<Status> {
    let resource = machine.request.call.resource();
    let mut status = Status::already_exists(&resource, object.name());
    if there.deleting() {
        status.message.insert_str(0, "object is being deleted: ");
    }
    if !object.str_at("/metadata/generateName").is_empty() && machine.object_name().name.is_empty() {
        status.details.get_or_insert_default().retry_after_seconds = Some(1);
    }
    status
}

fn valid(machine: &mut Machine<'_>, object: &Document) -> Stepped<()> {
    let row = &machine.request.call.row;
    let mut errors = object_meta(object, row.namespaced(), row.strategy.name_format());
    let change = machine.rules_change(Operation::Create, None);
    errors.extend(row.strategy.validate(object, &change));
    let warnings = if errors.is_empty() { row.strategy.warnings(object, &change) } else { Vec::new() };
    if !errors.is_empty() {
        row.checked_schema(machine.version()).show_values(&mut errors);
        return Err(Status::invalid(&body::kind_of(row, object), object.name(), &errors).into());
    }
    machine.warnings.extend(warnings);
    Ok(())
}

/// Who writes, for managed fields.
pub(super) fn writer<'b>(machine: &'b Machine<'_>) -> Writer<'b> {
    let request = machine.request;
    let manager = match request.options.manager.as_str() {
        "" => agent(request.call.user_agent()),
        manager => manager,
    };
    let has_status = request.call.version().subresource("status").is_some();
    let resets: &[&str] = match request.subresource() {
        "" if has_status => &["status"],
        "status" => &["spec"],
        _ => &[],
    };
    let force = request.options.force.unwrap_or_default();
    Writer { manager, subresource: request.subresource(), now: machine.now(), force, resets }
}

/// The part of a User-Agent that names the manager; the whole rule is `api`'s.
fn agent(user_agent: &str) -> &str {
    let named = default_manager(user_agent);
    user_agent.get(..named.len()).filter(|head| *head == named).unwrap_or("unknown")
}
