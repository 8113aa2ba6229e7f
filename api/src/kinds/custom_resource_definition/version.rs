//! One of `spec.versions`: its schema, subresources, columns, selectable fields and what it says of its end.

use serde_json::Value;

use super::schema;
use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::tree::{flag, get, list, text};
use crate::validation::text as names;

/// The most fields that a selector may name.
const MAX_SELECTABLE: usize = 8;
const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// The longest `deprecationWarning`, in bytes.
const MAX_WARNING: usize = 256;

pub(super) fn validate(spec: &Value, old: Option<&Document>, path: &Path) -> Errors {
    let versions = list(spec, "versions");
    let value = || spec.get("versions").cloned().unwrap_or_default();
    let mut errors = Errors::new();
    for (i, version) in versions.iter().enumerate() {
        let item = path.child("versions").index(i);
        let messages = names::label_1035(text(version, "name"));
        if !messages.is_empty() {
            errors.push(Error::invalid(item.child("name"), text(version, "name"), messages.join(",")));
        }
        errors.extend(deprecation(version, &item.child("deprecationWarning")));
        // What all versions say alike stands above them internally, and errors name it there.
        let place = |field: &str, above: &str| {
            let alike = versions.iter().all(|v| v.get(field) == version.get(field));
            if alike { path.child(above) } else { item.child(field) }
        };
        if i == 0 || versions.first().map(|v| v.get("schema")) != Some(version.get("schema")) {
            errors.extend(schema_of(version, &item, &place("schema", "validation")));
        }
        if let Some(scale) = version.pointer("/subresources/scale").filter(|s| !s.is_null()) {
            errors.extend(scale_paths(scale, &place("subresources", "subresources").child("scale")));
        }
        let columns_path = place("additionalPrinterColumns", "additionalPrinterColumns");
        errors.extend(columns(list(version, "additionalPrinterColumns"), &columns_path));
        errors.extend(selectable(version, old, &place("selectableFields", "selectableFields")));
    }
    let path = path.child("versions");
    let all: Vec<&str> = versions.iter().map(|v| text(v, "name")).collect();
    if all.iter().enumerate().any(|(i, name)| all.iter().take(i).any(|n| n == name)) {
        errors.push(Error::invalid(path.clone(), value(), "must contain unique version names"));
    }
    if versions.iter().filter(|v| flag(v, "storage")).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(path, value(), detail));
    }
    errors
}

fn deprecation(version: &Value, path: &Path) -> Errors {
    let Some(warning) = get(version, "deprecationWarning").and_then(Value::as_str) else { return Errors::new() };
    let mut found = Vec::new();
    if !flag(version, "deprecated") {
        return vec![Error::invalid(path.clone(), warning, "can only be set for deprecated versions")];
    }
    if warning.len() > MAX_WARNING {
        found.push(format!("must be <= {MAX_WARNING} characters long"));
    }
    if warning.is_empty() {
        found.push("must not be an empty string".into());
    }
    // Go's IsPrint: of spaces, only the plain one.
    let unprintable = |c: char| c.is_control() || (c.is_whitespace() && c != ' ');
    if let Some(at) = warning.find(unprintable) {
        let why = "must only contain printable UTF-8 characters; non-printable character found at index";
        found.push(format!("{why} {at}"));
    }
    found.into_iter().map(|why| Error::invalid(path.clone(), warning, why)).collect()
}

fn schema_of(version: &Value, item: &Path, place: &Path) -> Errors {
    match version.pointer("/schema/openAPIV3Schema").filter(|s| !s.is_null()) {
        None => vec![Error::required(item.child("schema").child("openAPIV3Schema"), "")],
        Some(described) => {
            let with_status = version.pointer("/subresources/status").is_some_and(|s| !s.is_null());
            schema::validate(described, with_status, place)
        }
    }
}

fn columns(columns: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, column) in columns.iter().enumerate() {
        let path = path.index(i);
        if text(column, "name").is_empty() {
            errors.push(Error::required(path.child("name"), ""));
        }
        let detail = format!("must be one of {}", TYPES.join(","));
        match text(column, "type") {
            "" => errors.push(Error::required(path.child("type"), detail)),
            kind if !TYPES.contains(&kind) => errors.push(Error::invalid(path.child("type"), kind, detail)),
            _ => {}
        }
        let format = text(column, "format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            let detail = format!("must be one of {}", FORMATS.join(","));
            errors.push(Error::invalid(path.child("format"), format, detail));
        }
        match text(column, "jsonPath") {
            "" => errors.push(Error::required(path.child("JSONPath"), "")),
            given => errors.extend(json_path(given, &path.child("JSONPath"))),
        }
    }
    errors
}

fn json_path(given: &str, path: &Path) -> Option<Error> {
    let detail = "must be a simple json path starting with .";
    (!given.starts_with('.')).then(|| Error::invalid(path.clone(), given, detail))
}

fn scale_paths(scale: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let fields: [(&str, &[&str], &str, bool); 3] = [
        ("specReplicasPath", &[".spec."], "should be a json path under .spec", true),
        ("statusReplicasPath", &[".status."], "should be a json path under .status", true),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status", false),
    ];
    for (field, roots, detail, required) in fields {
        let place = path.child(field);
        match text(scale, field) {
            "" if required => errors.push(Error::required(place, "")),
            "" => {}
            given => {
                let simple = json_path(given, &place);
                let misplaced = simple.is_none() && !roots.iter().any(|root| given.starts_with(root));
                errors.extend(simple);
                errors.extend(misplaced.then(|| Error::invalid(place, given, detail)));
            }
        }
    }
    errors
}

/// The fields that a selector may name: plain values by a plain path.
fn selectable(version: &Value, old: Option<&Document>, path: &Path) -> Errors {
    let fields = list(version, "selectableFields");
    let Some(schema) = version.pointer("/schema/openAPIV3Schema").filter(|_| !fields.is_empty()) else {
        return Errors::new();
    };
    let mut errors = Errors::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let place = path.index(i).child("jsonPath");
        let given = text(field, "jsonPath");
        let invalid = |why: String| Error::invalid(place.clone(), given, why);
        if given.is_empty() {
            errors.push(Error::required(place, ""));
            continue;
        }
        let found = match at(schema, given) {
            Ok(found) => found,
            Err(why) => {
                errors.push(invalid(format!("is an invalid path: {why}")));
                continue;
            }
        };
        if given == ".metadata" || given.starts_with(".metadata.") {
            errors.push(invalid("must not point to fields in metadata".into()));
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                       formats are allowed.";
            errors.push(invalid(why.into()));
        }
        match seen.contains(&given) {
            true => errors.push(Error::duplicate(place, given)),
            false => seen.push(given),
        }
    }
    let before = old.map_or(&[][..], |old| old.list_at("/spec/versions"));
    let before = before.iter().find(|v| v.get("name") == version.get("name")).map(|v| list(v, "selectableFields"));
    if seen.len() > MAX_SELECTABLE && before.is_none_or(|before| before.len() <= MAX_SELECTABLE || before != fields) {
        errors.push(Error::too_many(path.clone(), seen.len(), MAX_SELECTABLE));
    }
    errors
}

/// The schema of the field at a path of dots and names (`cel.ValidFieldPath` without array notation).
fn at<'s>(schema: &'s Value, path: &str) -> Result<&'s Value, String> {
    if path.contains('[') {
        return Err("array notation is not allowed".into());
    }
    let Some(rest) = path.strip_prefix('.') else {
        let first = path.split(['.', ']']).next().unwrap_or_default();
        return Err(format!("expected [ or . but got: {first}"));
    };
    if rest.is_empty() {
        return Err("unexpected end of JSON path".into());
    }
    rest.split('.').try_fold(schema, |schema, name| {
        let field = match (get(schema, "properties"), get(schema, "additionalProperties")) {
            (Some(fields), _) => fields.get(name),
            (None, Some(values)) => Some(values),
            (None, None) => None,
        };
        field.ok_or_else(|| "does not refer to a valid field".to_owned())
    })
}
