//! What the tests of single kinds share: a write as the write machine does it.

use serde_json::Value;

use super::{Change, Operation, Rules};
use crate::{Document, Timestamp};

fn change<'a>(operation: Operation, subresource: &'a str, old: Option<&'a Document>) -> Change<'a> {
    Change { operation, subresource, old, user: "someone", now: Timestamp::UNIX_EPOCH, version: "v1" }
}

/// The errors of a creation.
pub(super) fn create(rules: &dyn Rules, new: Document) -> Vec<String> {
    created(rules, new).1
}

/// The object as it would be created, and the errors.
pub(super) fn created(rules: &dyn Rules, mut new: Document) -> (Document, Vec<String>) {
    let change = change(Operation::Create, "", None);
    rules.default(&mut new);
    rules.prepare(&mut new, &change);
    let errors = rules.validate(&new, &change).iter().map(ToString::to_string).collect();
    (new, errors)
}

/// The object as an update would leave it, and the errors.
pub(super) fn update(
    rules: &dyn Rules,
    subresource: &str,
    mut new: Document,
    mut old: Document,
) -> (Document, Vec<String>) {
    rules.default(&mut old);
    rules.default(&mut new);
    let change = change(Operation::Update, subresource, Some(&old));
    rules.prepare(&mut new, &change);
    let errors = rules.validate(&new, &change).iter().map(ToString::to_string).collect();
    (new, errors)
}

/// The cells as texts, at the epoch.
pub(super) fn cells(rules: &dyn Rules, object: Value) -> Vec<String> {
    let mut object = Document::new(object).unwrap_or_default();
    rules.default(&mut object);
    let cells = rules.cells(&object, Timestamp::UNIX_EPOCH).unwrap_or_default();
    cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect()
}
