//! Server-side apply and `managedFields` (KEP-555; the semantics of sigs.k8s.io/structured-merge-diff).

mod compare;
mod conflict;
mod element;
mod fieldset;
mod last_applied;
mod managers;
mod merge;
mod place;
mod remove;
mod set;
#[cfg(test)]
mod tests;
mod updater;
mod validate;

use crate::schema::Schema;
use crate::{Document, Status, StatusResult, Timestamp};
use managers::{Manager, Managers, Owned};
use updater::Fault;

/// Who writes, how and when.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// `?fieldManager=`, or what stands for it (see [`default_manager`]).
    pub manager: &'a str,
    /// `""`, `status`, `scale`, ...
    pub subresource: &'a str,
    /// The request's time.
    pub now: Timestamp,
    /// Take over fields that others own (`?force=true`; apply only).
    pub force: bool,
    /// Fields that this endpoint leaves as they are, as paths like `status` or `metadata.labels`: they get no owner.
    pub resets: &'a [&'a str],
}

/// Owns what was there before the first apply to an object without managers.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager that kubectl applies with, from the client and from the server.
const KUBECTL: &str = "kubectl";

/// Applies `config` to the live object (`None`: it will be created). The result has its new `managedFields` and is read
/// by the schema; nothing is defaulted or validated. Errors: 409 with one cause a conflict, 400 for a config that has
/// managedFields or is of another kind, 500 (as upstream) for one that does not fit the schema.
pub fn apply(
    schema: &Schema,
    live: Option<&Document>,
    config: &Document,
    writer: &Writer<'_>,
) -> StatusResult<Document> {
    check_config(schema, config)?;
    let mut before = live.cloned().unwrap_or_else(|| empty(schema));
    let mut managers = Managers::decode(&before)
        .map_err(|why| Status::failure(500, "", format!("failed to decode managed fields: {why}")))?;
    before.remove("/metadata/managedFields");
    if managers.is_empty() && live.is_some() {
        own_update(
            schema,
            &empty(schema),
            &before,
            &mut managers,
            &Writer { manager: BEFORE_FIRST_APPLY, ..writer.clone() },
        );
    }
    let api_version = schema.kind().group_version().to_string();
    let manager = Manager::new(writer.manager, true, &api_version, writer.subresource);
    let applied = updater::apply(schema, &before, config, &managers, &manager, writer);
    let applied = last_applied::tolerate(schema, &before, config, &managers, &manager, writer, applied);
    let (merged, mut managers) = applied.map_err(|fault| fault.status(schema, config))?;
    let mut result = if crate::patch::same(&merged, before.value()) {
        before
    } else {
        if let Some(owned) = managers.0.get_mut(&manager) {
            owned.time = Some(writer.now);
        }
        reread(schema, merged, config)?
    };
    last_applied::keep(&mut result, config, writer.manager);
    managers.encode(&mut result);
    Ok(result)
}

/// Merges a partial object into a whole one by the schema, without owners: what an admission policy applies. The error
/// is upstream's text.
pub fn merge_object(schema: &Schema, object: &Document, config: &Document) -> Result<Document, String> {
    validate::validate(schema, config.value())?;
    Document::new(merge::merge(schema, object.value(), config.value())).ok_or_else(|| "no object".to_owned())
}

/// Sets `managedFields` of `new`, which any other write made from `live` (`None`: it is created). Call it when the new
/// object is defaulted, before admission. Never fails: where the fields of a client cannot be read, the live ones stay,
/// as upstream does.
pub fn update(schema: &Schema, live: Option<&Document>, new: &mut Document, writer: &Writer<'_>) {
    let mut managers = given(live, new, writer);
    if managers.is_empty() && live.is_some_and(|live| !live.uid().is_empty()) {
        new.remove("/metadata/managedFields");
        return;
    }
    let before = live.cloned().unwrap_or_else(|| empty(schema));
    own_update(schema, &before, new, &mut managers, writer);
    managers.encode(new);
}

/// The managers that a write starts from: those the client sends, if they can be read, else the live ones. An empty
/// list, or one empty entry, resets them.
fn given(live: Option<&Document>, new: &Document, writer: &Writer<'_>) -> Managers {
    let of_live = || live.and_then(|live| Managers::decode(live).ok()).unwrap_or_default();
    if !writer.subresource.is_empty() {
        return of_live();
    }
    let entries = new.at("/metadata/managedFields").and_then(|entries| entries.as_array());
    let is_reset = entries.is_some_and(|entries| match entries.as_slice() {
        [] => true,
        [only] => only.as_object().is_some_and(|entry| entry.values().all(|value| value.as_str() == Some(""))),
        _ => false,
    });
    if is_reset {
        return Managers::default();
    }
    Managers::decode(new).ok().filter(|managers| !managers.is_empty()).unwrap_or_else(of_live)
}

/// Gives the writer what changed from `before` to `after`, and takes it from the others.
fn own_update(schema: &Schema, before: &Document, after: &Document, managers: &mut Managers, writer: &Writer<'_>) {
    let changed = updater::update(schema, before.value(), after.value(), managers, writer.resets);
    if !changed.is_empty() {
        let api_version = schema.kind().group_version().to_string();
        let manager = Manager::new(writer.manager, false, &api_version, writer.subresource);
        let mut set = managers.0.remove(&manager).map(|owned| owned.set).unwrap_or_default();
        set.absorb(changed);
        managers.0.insert(manager, Owned { set, api_version, time: Some(writer.now) });
    }
    managers.cap();
}

/// An object of the kind without any values, as Go's zero value shows it.
fn empty(schema: &Schema) -> Document {
    let mut document = schema.zero();
    let kind = schema.kind();
    document.set("/apiVersion", kind.group_version().to_string());
    document.set("/kind", kind.kind.as_str());
    document
}

fn check_config(schema: &Schema, config: &Document) -> StatusResult<()> {
    let kind = schema.kind();
    let group_version = kind.group_version().to_string();
    if config.api_version() != group_version || config.kind() != kind.kind {
        let (group, version) = config.api_version().split_once('/').unwrap_or(("", config.api_version()));
        let found = format!("{group}/{version}, Kind={}", config.kind());
        return Err(Status::bad_request(format!("invalid object type: {found}")));
    }
    if config.at("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    validate::validate(schema, config.value()).map_err(|why| Fault::Typed(why).status(schema, config))
}

/// Reads the merged object by the schema.
fn reread(schema: &Schema, merged: serde_json::Value, config: &Document) -> StatusResult<Document> {
    let read = if schema.is_custom() {
        crate::schema::custom_tree(schema, merged).map(|(document, _)| document)
    } else {
        schema.read_unstructured(merged)
    };
    read.map_err(|why| {
        let object = updater::described(schema, config);
        let kind = object.split_once("; ").map_or("", |(_, kind)| kind);
        let why = format!("unable to convert unstructured object to {kind}: {why}");
        Status::failure(500, "", format!("failed to convert new object ({object}) to proper version: {why}"))
    })
}

/// The manager of a request without `?fieldManager=`: the User-Agent up to its first slash, at most 128 bytes.
pub fn default_manager(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    let mut out = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > 128 {
            break;
        }
        out.push(c);
    }
    out
}
