//! A PATCH request from its body to the new object.

use serde_json::Value;

use super::{PatchType, json, merge, shown, strategic};
use crate::decode::node::Node;
use crate::decode::read::{Words, read};
use crate::decode::{Decoded, FieldValidation, plain_strict, same_kind, strict_error};
use crate::field::{Error, Path};
use crate::name::GroupKind;
use crate::schema::{Schema, custom_tree};
use crate::{Document, Status, StatusResult};

/// Does a whole PATCH request: reads the body, applies it to the live object, reads the result by the schema. The result
/// is neither defaulted nor validated. `live` must be in the schema's version.
pub fn request(
    schema: &Schema,
    kind: PatchType,
    live: &Document,
    body: &[u8],
    validation: FieldValidation,
) -> StatusResult<Decoded> {
    let (patch, duplicates) = plain_strict(body).map_err(|_| Status::bad_request("invalid JSON patch"))?;
    let (patched, mut strict, shown) = match kind {
        PatchType::Json => {
            let kept = kept_duplicates(&patch, &duplicates);
            let mut strict = operations(&patch, duplicates).map_err(decoding)?;
            let patched = json(live, &patch)?;
            strict.extend(kept);
            let shown = patched.value().to_string();
            (patched, strict, shown)
        }
        PatchType::Merge => {
            merge_patch(&patch, validation)?;
            let patched = merge(live, &patch);
            let shown = patched.value().to_string();
            (patched, duplicates, shown)
        }
        PatchType::Strategic => {
            let patch = if patch.is_null() { Value::Object(serde_json::Map::new()) } else { patch };
            (strategic(schema, live, &patch)?, duplicates, shown::value(&patch))
        }
    };
    let words = if kind == PatchType::Strategic { Words::Unstructured } else { Words::Json };
    let read = of_kind(schema, kind, patched).and_then(|patched| reread(schema, patched, words));
    let (document, unknown) = read.map_err(|why| refused(&shown, &why))?;
    strict.extend(unknown);
    match validation {
        FieldValidation::Strict if !strict.is_empty() => Err(refused(&shown, &strict_error(&strict))),
        FieldValidation::Warn => Ok(Decoded { document, warnings: strict }),
        _ => Ok(Decoded { document, warnings: Vec::new() }),
    }
}

fn decoding(why: String) -> Box<Status> {
    Status::bad_request(format!("error decoding patch: {why}"))
}

/// 422: the patched object cannot be read.
fn refused(shown: &str, why: &str) -> Box<Status> {
    let nothing = GroupKind { group: String::new(), kind: String::new() };
    Status::invalid(&nothing, "", &[Error::invalid(Path::new("patch"), shown, why)])
}

fn reread(schema: &Schema, patched: Document, words: Words) -> Result<(Document, Vec<String>), String> {
    if schema.is_custom() {
        let (document, unknown) = custom_tree(schema, patched.into_value())?;
        return Ok((document, unknown.iter().map(|path| format!("unknown field {path:?}")).collect()));
    }
    let outcome = read(schema, Node::of(patched.value()), words)?;
    Ok((Document::new(Value::Object(outcome.value)).unwrap_or_default(), outcome.strict))
}

/// A patched built-in object is of the kind it was: a strategic merge does not look at that, others are refused. The
/// kind of a custom one is looked at by its rules, if it has any.
fn of_kind(schema: &Schema, kind: PatchType, mut patched: Document) -> Result<Document, String> {
    if schema.is_custom() {
        return match patched.kind() {
            "" => Err(format!("Object 'Kind' is missing in '{}'", patched.value())),
            _ => Ok(patched),
        };
    }
    if kind == PatchType::Strategic {
        patched.set("/apiVersion", schema.kind().group_version().to_string());
        patched.set("/kind", schema.kind().kind.as_str());
    }
    same_kind(schema.kind(), &mut patched)?;
    Ok(patched)
}

fn merge_patch(patch: &Value, validation: FieldValidation) -> StatusResult<()> {
    match patch {
        Value::Object(_) => Ok(()),
        Value::Null => Err(Status::bad_request("Invalid JSON Patch")),
        _ if validation == FieldValidation::Ignore => Err(Status::bad_request("Invalid JSON Patch")),
        other => Err(decoding(shown::not_a_map(other))),
    }
}

/// Duplicates inside values, which upstream meets again in the patched object: `[0].value.a` as `data.a`.
fn kept_duplicates(patch: &Value, duplicates: &[String]) -> Vec<String> {
    let kept = duplicates.iter().filter_map(|fault| {
        let (at, field) = fault.strip_prefix("duplicate field \"[")?.split_once("].value.")?;
        let operation = patch.get(at.parse::<usize>().ok()?)?;
        let path = operation.get("path")?.as_str()?.strip_prefix('/')?;
        Some(format!("duplicate field \"{}.{field}", path.replace('/', ".")))
    });
    kept.collect()
}

/// Checks the form of JSON patch operations as Go reads them into a struct; returns duplicate and unknown fields.
fn operations(patch: &Value, duplicates: Vec<String>) -> Result<Vec<String>, String> {
    let kind = |value: &Value| Node::of(value).go_kind();
    let operations = match patch {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        other => {
            let found = kind(other);
            return Err(format!("json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp"));
        }
    };
    let mut strict = duplicates;
    for (at, operation) in operations.iter().enumerate() {
        let Value::Object(fields) = operation else {
            let found = kind(operation);
            return Err(format!("json: cannot unmarshal {found} into Go value of type handlers.jsonPatchOp"));
        };
        for (key, value) in fields {
            match (key.as_str(), value) {
                ("op" | "path" | "from", Value::String(_) | Value::Null) | ("value", _) => {}
                ("op" | "path" | "from", other) => {
                    let found = kind(other);
                    let field = format!("jsonPatchOp.{key}");
                    return Err(format!("json: cannot unmarshal {found} into Go struct field {field} of type string"));
                }
                _ => strict.push(format!("unknown field \"[{at}].{key}\"")),
            }
        }
    }
    Ok(strict.into_iter().map(|fault| format!("json patch {fault}")).collect())
}
