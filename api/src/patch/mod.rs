//! Patches: RFC 6902, RFC 7386 and strategic merge, with kube-apiserver's errors.

mod json;
mod merge;
mod order;
mod request;
mod shown;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::schema::Schema;
use crate::{Document, Status, StatusResult};

pub(crate) use json::same;
pub use request::request;
pub use shown::go_type;
pub(crate) use shown::value as go_value;

/// Which patch a PATCH request carries; server-side apply is [`crate::apply`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`; built-in kinds only.
    Strategic,
}

impl PatchType {
    /// By the media type without parameters.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            _ => return None,
        })
    }
}

/// Applies RFC 6902 operations as the library behind kube-apiserver does. Errors are 422 without words of their own,
/// 413 for too many operations.
pub fn json(document: &Document, operations: &Value) -> StatusResult<Document> {
    let value = json::apply(document.value().clone(), operations)?;
    Document::new(value).ok_or_else(json::rejected)
}

/// Applies RFC 7386.
pub fn merge(document: &Document, patch: &Value) -> Document {
    let mut value = document.value().clone();
    merge::merge(&mut value, patch.clone());
    Document::new(value).unwrap_or_default()
}

/// Applies a strategic merge patch.
pub(crate) fn strategic(schema: &Schema, document: &Document, patch: &Value) -> StatusResult<Document> {
    let wrong = || Status::bad_request(shown::not_a_map(patch));
    let (Value::Object(original), Value::Object(patch)) = (document.value(), patch) else { return Err(wrong()) };
    let merged = strategic::merge(schema, original.clone(), patch.clone()).map_err(strategic::Fault::status)?;
    Ok(Document::new(Value::Object(merged)).unwrap_or_default())
}
