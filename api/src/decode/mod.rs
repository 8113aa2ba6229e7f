//! From bytes to a checked document: JSON and YAML, unknown and duplicate fields, Go's error texts.

mod body;
mod go;
mod json;
pub(crate) mod node;
pub(crate) mod read;
mod scalar;
mod scalars;
#[cfg(test)]
mod tests;
mod time_text;
mod yaml;

use serde_json::Value;

use crate::Document;
use crate::schema::Schema;

pub use body::{apply_body, delete_options, kind};
pub(crate) use body::{body, plain_strict, same_kind, strict_error};
use node::{Node, Path, Strict};
pub use scalars::illegal_base64;

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

/// Reads a request's body as a plain tree: options, patches, webhook answers. Errors are Go's bare texts. Of duplicate
/// keys the last counts.
pub fn plain(bytes: &[u8], format: Format) -> Result<Value, String> {
    let node = match format {
        Format::Json => json::parse(bytes)?,
        Format::Yaml => yaml::parse(bytes)?.node,
    };
    Ok(node.plain(&mut Path::default(), &mut Strict::default()))
}

pub(crate) fn tree(schema: &Schema, value: Value) -> Result<Read, String> {
    let outcome = read::read(schema, Node::of(&value), read::Words::Json)?;
    let document = Document::new(Value::Object(outcome.value)).unwrap_or_default();
    Ok(Read { document, unknown: outcome.strict })
}
