//! ConfigMap.

use serde_json::Value;

use super::cell::{self, row};
use super::{Change, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::map;
use crate::validation::{same, text};
use crate::{Document, Timestamp};

/// Rules of `v1 ConfigMap`.
pub(super) struct ConfigMap;

/// The most bytes of all values of a ConfigMap or Secret.
pub(super) const MAX_SIZE: usize = 1024 * 1024;

impl Rules for ConfigMap {
    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let mut errors = change.old.map_or_else(Errors::new, |old| immutable(new, old, &["data", "binaryData"]));
        errors.extend(contents(new));
        errors
    }

    fn cells(&self, object: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let keys = map(object.at("/data")).count() + map(object.at("/binaryData")).count();
        row![object.name(), keys, cell::age(object, now)]
    }
}

fn contents(new: &Document) -> Errors {
    let (data, binary) = (new.at("/data"), new.at("/binaryData"));
    let mut errors = Errors::new();
    let mut size = 0;
    for (key, value) in map(data) {
        errors.extend(key_errors("data", key));
        if binary.is_some_and(|b| b.get(key).is_some()) {
            let detail = "duplicate of key present in binaryData";
            errors.push(Error::invalid(Path::new("data").key(key), key.as_str(), detail));
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in map(binary) {
        errors.extend(key_errors("binaryData", key));
        size += decoded_length(value);
    }
    if size > MAX_SIZE {
        // Upstream's path has one segment, and that has no name.
        errors.push(Error::too_long(Path::new("[]"), MAX_SIZE));
    }
    errors
}

/// What is wrong with a key of a ConfigMap or Secret.
pub(super) fn key_errors(field: &str, key: &str) -> Errors {
    let path = Path::new(field).key(key);
    text::config_key(key).into_iter().map(|m| Error::invalid(path.clone(), key, m)).collect()
}

/// How many bytes a base64 text stands for.
pub(super) fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|b| *b == b'=').count())
}

/// An object marked immutable stays so, with its data.
pub(super) fn immutable(new: &Document, old: &Document, fields: &[&str]) -> Errors {
    let mut errors = Errors::new();
    if !old.bool_at("/immutable") {
        return errors;
    }
    let detail = "field is immutable when `immutable` is set";
    if !new.bool_at("/immutable") {
        errors.push(Error::forbidden(Path::new("immutable"), detail));
    }
    for field in fields {
        let pointer = format!("/{field}");
        let map = |doc: &Document| doc.at(&pointer).filter(|v| v.as_object().is_some_and(|m| !m.is_empty())).cloned();
        if !same(map(new).as_ref(), map(old).as_ref()) {
            errors.push(Error::forbidden(Path::new(field), detail));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::decoded_length;

    #[test]
    fn base64_tells_its_length() {
        for (text, length) in [("", 0), ("YQ==", 1), ("YWI=", 2), ("YWJj", 3)] {
            assert_eq!(decoded_length(&text.into()), length, "{text}");
        }
    }
}
