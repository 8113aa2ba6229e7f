//! From client-side to server-side apply: kubectl's `last-applied-configuration` annotation stands for ownership.

use serde_json::Value;

use super::compare::compare;
use super::managers::{Manager, Managers};
use super::set::Set;
use super::updater::{self, Fault};
use super::{KUBECTL, Writer, fieldset};
use crate::Document;
use crate::schema::Schema;

const ANNOTATION: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";

/// The result of an apply.
type Applied = Result<(Value, Managers), Fault>;

/// Lets kubectl take over what it had applied from the client, if nobody changed it since.
pub(super) fn tolerate(
    schema: &Schema,
    live: &Document,
    config: &Document,
    managers: &Managers,
    manager: &Manager,
    writer: &Writer<'_>,
    applied: Applied,
) -> Applied {
    let conflicts = match applied {
        Err(Fault::Conflicts(conflicts)) if writer.manager == KUBECTL => conflicts,
        other => return other,
    };
    let Some(allowed) = allowed(schema, live) else { return Err(Fault::Conflicts(conflicts)) };
    let left: Vec<_> = conflicts
        .into_iter()
        .map(|(manager, owned, set)| (manager, owned, set.difference(&allowed)))
        .filter(|(_, _, set)| !set.is_empty())
        .collect();
    if !left.is_empty() {
        return Err(Fault::Conflicts(left));
    }
    updater::apply(schema, live, config, managers, manager, &Writer { force: true, ..writer.clone() })
}

/// What the annotation says and is still so.
fn allowed(schema: &Schema, live: &Document) -> Option<Set> {
    let last = Document::parse(live.str_at(ANNOTATION).as_bytes()).ok()?;
    if last.api_version() != schema.kind().group_version().to_string() {
        return None;
    }
    let compared = compare(schema, last.value(), live.value());
    let same = fieldset::of(schema, last.value());
    Some(same.difference(&compared.modified).difference(&compared.added).difference(&compared.removed))
}

/// Keeps the annotation, where there is one, in step with what kubectl applies from the server.
pub(super) fn keep(object: &mut Document, config: &Document, manager: &str) {
    if manager != KUBECTL || object.str_at(ANNOTATION).is_empty() {
        return;
    }
    let mut config = config.clone();
    config.remove(ANNOTATION);
    object.set(ANNOTATION, format!("{}\n", config.value()));
}
