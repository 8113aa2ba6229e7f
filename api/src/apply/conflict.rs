//! The answer to an apply that would change what others own.

use super::managers::{Manager, Owned};
use super::set::{Set, shown};
use crate::Status;
use crate::status::{Cause, Details};

/// Managers with what of theirs would change.
pub(super) type Conflicts = Vec<(Manager, Owned, Set)>;

/// 409 with one cause for each field.
pub(super) fn status(conflicts: &Conflicts) -> Box<Status> {
    let named: Vec<(String, Vec<String>)> = conflicts
        .iter()
        .map(|(manager, owned, set)| (name(manager, owned), set.paths().iter().map(|path| shown(path)).collect()))
        .collect();
    let cause = |who: &str, field: &String| Cause {
        reason: "FieldManagerConflict".into(),
        message: format!("conflict with {who}"),
        field: field.clone(),
    };
    let causes: Vec<Cause> =
        named.iter().flat_map(|(who, fields)| fields.iter().map(move |field| cause(who, field))).collect();
    Status::failure(409, "Conflict", message(named, causes.len())).with(Details { causes, ..Details::default() })
}

fn message(mut named: Vec<(String, Vec<String>)>, count: usize) -> String {
    if let ([(who, fields)], 1) = (named.as_slice(), count) {
        return format!("Apply failed with 1 conflict: conflict with {who}: {}", fields.join(""));
    }
    named.sort();
    let part = |(who, fields): &(String, Vec<String>)| {
        let fields: Vec<String> = fields.iter().map(|field| format!("- {field}")).collect();
        format!("conflicts with {who}:\n{}", fields.join("\n"))
    };
    let parts: Vec<String> = named.iter().map(part).collect();
    format!("Apply failed with {count} conflicts: {}", parts.join("\n"))
}

/// `"kubectl" with subresource "status" using apps/v1 at 2024-01-31T10:00:00Z`.
fn name(manager: &Manager, owned: &Owned) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", manager.subresource));
    }
    if !manager.applies.0 {
        text.push_str(&format!(" using {}", owned.api_version));
    }
    text
}
