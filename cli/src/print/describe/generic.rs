//! Kinds of which there is little to say, and any other kind field by field.

use api::Timestamp;
use serde_json::Value;

use super::Related;
use super::text::{Text, when};
use crate::verbs::value::{list, text, text_at};

fn head(object: &Value, out: &mut Text) {
    out.field(0, "Name", text_at(object, "/metadata/name"));
    out.field(0, "Namespace", text_at(object, "/metadata/namespace"));
    labels(object, out);
}

fn labels(object: &Value, out: &mut Text) {
    out.pairs("Labels", object.pointer("/metadata/labels"));
    out.annotations("Annotations", object.pointer("/metadata/annotations"));
}

pub(super) fn namespace(object: &Value, _related: &Related, _now: Timestamp, out: &mut Text) {
    out.field(0, "Name", text_at(object, "/metadata/name"));
    labels(object, out);
    out.field(0, "Status", text_at(object, "/status/phase"));
    let conditions = object.get("status").map_or(&[] as &[Value], |s| list(s, "conditions"));
    if !conditions.is_empty() {
        out.line(0, "Conditions:");
        out.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        out.line(1, "----\t------\t------------------\t------\t-------");
        for c in conditions {
            let at = when(text(c, "lastTransitionTime"));
            out.line(1, &[text(c, "type"), text(c, "status"), &at, text(c, "reason"), text(c, "message")].join("\t"));
        }
    }
}

pub(super) fn config_map(object: &Value, _related: &Related, _now: Timestamp, out: &mut Text) {
    head(object, out);
    out.line(0, "\nData\n====");
    for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
        out.line(0, &format!("{key}:\n----\n{}\n", value.as_str().unwrap_or_default()));
    }
    out.line(0, "\nBinaryData\n====");
    for (key, value) in object.get("binaryData").and_then(Value::as_object).into_iter().flatten() {
        out.line(0, &format!("{key}: {} bytes", decoded_length(value)));
    }
    out.line(0, "");
}

pub(super) fn secret(object: &Value, _related: &Related, _now: Timestamp, out: &mut Text) {
    head(object, out);
    out.line(0, &format!("\nType:\t{}\n\nData\n====", text(object, "type")));
    for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
        out.field(0, key, format!("{} bytes", decoded_length(value)));
    }
}

fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|b| *b == b'=').count())
}

const SHOWN_ABOVE: [&str; 5] =
    [".metadata.managedFields", ".metadata.name", ".metadata.namespace", ".metadata.labels", ".metadata.annotations"];

pub(super) fn anything(object: &Value, _related: &Related, _now: Timestamp, out: &mut Text) {
    head(object, out);
    fields(object, 0, "", out);
}

fn fields(value: &Value, level: usize, path: &str, out: &mut Text) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if SHOWN_ABOVE.contains(&path.as_str()) {
            continue;
        }
        let title = title(name);
        match value {
            Value::Object(_) => {
                out.line(level, &format!("{title}:"));
                fields(value, level + 1, &path, out);
            }
            Value::Array(items) => {
                out.line(level, &format!("{title}:"));
                for item in items {
                    match item {
                        Value::Object(_) => fields(item, level + 1, &path, out),
                        other => out.line(level + 1, &scalar(other)),
                    }
                }
            }
            other => out.field(level, &title, scalar(other)),
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".into(),
        other => other.to_string(),
    }
}

/// `apiVersion` becomes `API Version`: words with capitals, and some that are all capitals.
fn title(name: &str) -> String {
    if name.contains(['/', '.', '-']) {
        return name.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    for c in name.chars() {
        match words.last_mut() {
            Some(word) if !c.is_ascii_uppercase() || word.chars().last().is_some_and(|l| l.is_ascii_uppercase()) => {
                word.push(c)
            }
            _ => words.push(c.to_string()),
        }
    }
    words.iter().map(|word| capital(word)).collect::<Vec<_>>().join(" ")
}

fn capital(word: &str) -> String {
    if matches!(word.to_lowercase().as_str(), "api" | "url" | "uid" | "osb" | "guid") {
        return word.to_uppercase();
    }
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn titles_are_words() {
        for (name, title) in
            [("apiVersion", "API Version"), ("spec", "Spec"), ("uid", "UID"), ("holderIdentity", "Holder Identity")]
        {
            assert_eq!(super::title(name), title);
        }
    }
}
