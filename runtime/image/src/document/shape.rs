//! What kind of value must stand where, so that an error names the field (OCI image-spec: manifest.md, image-index.md,
//! config.md).

use serde_json::Value;

use super::malformed;
use crate::Result;

/// What may stand in a field.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Object,
    List,
    /// Of a size: neither negative nor broken.
    Number,
    Text,
    /// Text that becomes an argument of a system call or a line of a file: without control characters.
    Line,
    /// Text that becomes an argument: without NUL.
    Argument,
}

use Kind::{Argument, Line, List, Number, Object, Text};

/// A place (`*` is each element of a list or each value of an object) and what must stand there.
pub(super) type Row = (&'static [&'static str], Kind);

pub(super) const MANIFEST: &[Row] = &[
    (&[], Object),
    (&["schemaVersion"], Number),
    (&["mediaType"], Text),
    (&["config"], Object),
    (&["config", "mediaType"], Text),
    (&["config", "digest"], Text),
    (&["config", "size"], Number),
    (&["layers"], List),
    (&["layers", "*"], Object),
    (&["layers", "*", "mediaType"], Text),
    (&["layers", "*", "digest"], Text),
    (&["layers", "*", "size"], Number),
    (&["layers", "*", "annotations"], Object),
    (&["layers", "*", "annotations", "*"], Text),
    (&["artifactType"], Text),
    (&["subject"], Object),
    (&["subject", "mediaType"], Text),
    (&["subject", "digest"], Text),
    (&["subject", "size"], Number),
    (&["annotations"], Object),
    (&["annotations", "*"], Text),
];

pub(super) const INDEX: &[Row] = &[
    (&[], Object),
    (&["schemaVersion"], Number),
    (&["mediaType"], Text),
    (&["manifests"], List),
    (&["manifests", "*"], Object),
    (&["manifests", "*", "mediaType"], Text),
    (&["manifests", "*", "digest"], Text),
    (&["manifests", "*", "size"], Number),
    (&["manifests", "*", "platform"], Object),
    (&["manifests", "*", "platform", "os"], Text),
    (&["manifests", "*", "platform", "architecture"], Text),
    (&["manifests", "*", "platform", "variant"], Text),
    (&["manifests", "*", "annotations"], Object),
    (&["manifests", "*", "artifactType"], Text),
    (&["manifests", "*", "annotations", "*"], Text),
    (&["artifactType"], Text),
    (&["subject"], Object),
    (&["subject", "mediaType"], Text),
    (&["subject", "digest"], Text),
    (&["subject", "size"], Number),
    (&["annotations"], Object),
    (&["annotations", "*"], Text),
];

pub(super) const CONFIGURATION: &[Row] = &[
    (&[], Object),
    (&["architecture"], Text),
    (&["os"], Text),
    (&["rootfs"], Object),
    (&["rootfs", "type"], Text),
    (&["rootfs", "diff_ids"], List),
    (&["rootfs", "diff_ids", "*"], Text),
    (&["config"], Object),
    (&["config", "User"], Line),
    (&["config", "WorkingDir"], Line),
    (&["config", "StopSignal"], Line),
    (&["config", "Env"], List),
    (&["config", "Env", "*"], Argument),
    (&["config", "Entrypoint"], List),
    (&["config", "Entrypoint", "*"], Argument),
    (&["config", "Cmd"], List),
    (&["config", "Cmd", "*"], Argument),
    (&["config", "ExposedPorts"], Object),
    (&["config", "Volumes"], Object),
    (&["config", "Labels"], Object),
    (&["config", "Labels", "*"], Text),
];

/// A field that is null is absent, as Go has it.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, one| !one.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Checks a document against a table. Absent fields are right.
pub(super) fn check(document: &Value, rows: &[Row], what: &str) -> Result<()> {
    for (place, kind) in rows {
        visit(document, place, String::new(), &mut |value, at| match is(value, *kind) {
            true => Ok(()),
            false => Err(malformed(what, format!("{}must be {}", prefix(&at), words(*kind)))),
        })?;
    }
    Ok(())
}

fn visit(value: &Value, place: &[&str], at: String, found: &mut dyn FnMut(&Value, String) -> Result<()>) -> Result<()> {
    let Some((step, rest)) = place.split_first() else { return found(value, at) };
    match value {
        Value::Array(list) if *step == "*" => {
            list.iter().enumerate().try_for_each(|(n, one)| visit(one, rest, format!("{at}[{n}]"), found))
        }
        Value::Object(map) if *step == "*" => map.iter().try_for_each(|(key, one)| {
            visit(one, rest, format!("{at}.{}", key.chars().take(100).collect::<String>().escape_debug()), found)
        }),
        Value::Object(map) => match map.get(*step) {
            None => Ok(()),
            Some(one) => {
                visit(one, rest, if at.is_empty() { (*step).to_owned() } else { format!("{at}.{step}") }, found)
            }
        },
        _ => Ok(()),
    }
}

fn is(value: &Value, kind: Kind) -> bool {
    match (kind, value) {
        (Object, Value::Object(_)) | (List, Value::Array(_)) | (Text, Value::String(_)) => true,
        (Number, value) => value.as_u64().is_some(),
        (Line, Value::String(text)) => !text.chars().any(char::is_control),
        (Argument, Value::String(text)) => !text.contains('\0'),
        _ => false,
    }
}

fn words(kind: Kind) -> &'static str {
    match kind {
        Object => "an object",
        List => "a list",
        Number => "a number that is not negative",
        Text => "text",
        Line => "text without control characters",
        Argument => "text without NUL",
    }
}

fn prefix(at: &str) -> String {
    if at.is_empty() { "it ".to_owned() } else { format!("{at}: ") }
}
