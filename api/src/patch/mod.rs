//! Patches: RFC 6902, RFC 7386 and strategic merge, with kube-apiserver's errors.

use serde_json::Value;

use crate::decode::{Decoded, FieldValidation};
use crate::schema::Schema;
use crate::{Document, Status, StatusResult};

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

/// Does a whole PATCH request: reads the body, applies it to the live object, reads the result by the schema. The result
/// is neither defaulted nor validated. `live` must be in the schema's version.
pub fn request(
    schema: &Schema,
    kind: PatchType,
    live: &Document,
    body: &[u8],
    _validation: FieldValidation,
) -> StatusResult<Decoded> {
    let patch = crate::decode::plain(body, crate::decode::Format::Json).map_err(Status::bad_request)?;
    let document = match kind {
        PatchType::Json => json(live, &patch)?,
        PatchType::Merge => merge(live, &patch),
        PatchType::Strategic => strategic(schema, live, &patch)?,
    };
    Ok(Decoded { document, warnings: Vec::new() })
}

/// Applies RFC 6902 operations. Errors are 422 and 400 as kube-apiserver answers them.
pub fn json(document: &Document, operations: &Value) -> StatusResult<Document> {
    let ops: json_patch::Patch =
        serde_json::from_value(operations.clone()).map_err(|e| Status::bad_request(e.to_string()))?;
    let mut value = document.value().clone();
    json_patch::patch(&mut value, &ops).map_err(|e| Status::bad_request(e.to_string()))?;
    Document::new(value).ok_or_else(|| Status::bad_request("not an object"))
}

/// Applies RFC 7386.
pub fn merge(document: &Document, patch: &Value) -> Document {
    let mut value = document.value().clone();
    json_patch::merge(&mut value, patch);
    Document::new(value).unwrap_or_default()
}

/// Applies a strategic merge patch.
pub(crate) fn strategic(_schema: &Schema, document: &Document, patch: &Value) -> StatusResult<Document> {
    Ok(merge(document, patch))
}
