//! Checks that many kinds share: metadata, names, labels, addresses, immutability
//! (`k8s.io/apimachinery/pkg/api/validation`, `pkg/apis/core/validation`).
//!
//! The write machine calls [`object_meta`] and [`object_meta_update`] for every object; a kind's own rules call the
//! others. Error types, field paths and details are upstream's.

pub mod address;
pub mod labels;
mod meta;
pub mod text;

pub use meta::{annotations, field_manager, finalizers, name_messages, object_meta, object_meta_update};

use serde_json::{Map, Value};

use crate::field::{Error, Errors, Path};

/// One "Invalid value" error a message.
pub fn invalid_each(path: &Path, value: impl Into<Value>, messages: text::Messages) -> Errors {
    let value = value.into();
    messages.into_iter().map(|message| Error::invalid(path.clone(), value.clone(), message)).collect()
}

/// "field is immutable", where the two values differ in meaning.
pub fn immutable(new: Option<&Value>, old: Option<&Value>, path: &Path) -> Errors {
    if same(new, old) {
        return Errors::new();
    }
    vec![Error::invalid(path.clone(), new.cloned().unwrap_or_default(), "field is immutable")]
}

/// A whole number that must not be negative.
pub fn non_negative(value: Option<i64>, path: &Path) -> Errors {
    match value {
        Some(n) if n < 0 => vec![Error::invalid(path.clone(), n, "must be greater than or equal to 0")],
        _ => Errors::new(),
    }
}

/// A whole number that must be above nought.
pub fn positive(value: Option<i64>, path: &Path) -> Errors {
    match value.unwrap_or_default() {
        n if n <= 0 => vec![Error::invalid(path.clone(), n, "must be greater than zero")],
        _ => Errors::new(),
    }
}

/// One of the texts allowed; the empty one is allowed only where it is among them, and required otherwise.
pub fn one_of(value: &str, path: &Path, allowed: &[&str]) -> Errors {
    match value {
        _ if allowed.contains(&value) => Errors::new(),
        "" => vec![Error::required(path.clone(), "")],
        _ => supported(value, path, allowed),
    }
}

/// One of the texts allowed.
pub fn supported(value: &str, path: &Path, allowed: &[&str]) -> Errors {
    if allowed.contains(&value) {
        return Errors::new();
    }
    vec![Error::not_supported(path.clone(), value, allowed)]
}

/// A DNS label.
pub fn dns_label(value: &str, path: &Path) -> Errors {
    invalid_each(path, value, text::label(value))
}

/// A DNS subdomain.
pub fn dns_subdomain(value: &str, path: &Path) -> Errors {
    invalid_each(path, value, text::subdomain(value))
}

/// A name with an optional domain before it.
pub fn qualified_name(value: &str, path: &Path) -> Errors {
    invalid_each(path, value, text::qualified_name(value))
}

/// A path behind a domain, `acme.io/foo`.
pub fn domain_prefixed_path(value: &str, path: &Path) -> Errors {
    match value.split_once('/') {
        None if value.is_empty() => vec![Error::required(path.clone(), "")],
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => invalid_each(path, host, text::subdomain(host)),
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            vec![Error::invalid(path.clone(), value, detail)]
        }
    }
}

/// A port's number or name.
pub fn port_or_name(value: Option<&Value>, path: &Path) -> Errors {
    match value {
        Some(Value::String(name)) => invalid_each(path, name.as_str(), text::port_name(name)),
        other => {
            let number = other.and_then(Value::as_i64).unwrap_or_default();
            invalid_each(path, number, text::port_number(number))
        }
    }
}

/// A protocol that ports can have.
pub fn protocol(value: &str, path: &Path) -> Errors {
    one_of(value, path, &["SCTP", "TCP", "UDP"])
}

/// A whole number or a percentage, not negative.
pub fn int_or_percent(value: Option<&Value>, path: &Path) -> Errors {
    match value {
        Some(Value::String(percent)) => invalid_each(path, percent.as_str(), text::percent(percent)),
        other => non_negative(other.and_then(Value::as_i64), path),
    }
}

/// A percentage of at most 100.
pub fn at_most_100_percent(value: Option<&Value>, path: &Path) -> Errors {
    let percent = value.and_then(Value::as_str).and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
    match percent {
        Some(n) if n > 100 => {
            vec![Error::invalid(path.clone(), format!("{n}%"), "must not be greater than 100%")]
        }
        _ => Errors::new(),
    }
}

/// Maps of the API whose emptiness means the same as their absence. Other empty objects say something: `emptyDir: {}`.
const MAPS: [&str; 9] =
    ["labels", "annotations", "matchLabels", "nodeSelector", "limits", "requests", "data", "binaryData", "selector"];

/// Whether two values mean the same (`apiequality.Semantic.DeepEqual`): null, an empty list and an empty map are the
/// same as nothing.
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a.filter(|v| !empty(v)), b.filter(|v| !empty(v))) {
        (None, None) => true,
        (Some(Value::Object(a)), Some(Value::Object(b))) => same_object(a, b),
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (a, b) => a == b,
    }
}

fn same_object(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let value = |map: &Map<String, Value>, key: &String| {
        let value = map.get(key)?;
        let nothing = MAPS.contains(&key.as_str()) && value.as_object().is_some_and(Map::is_empty);
        (!nothing).then(|| value.clone())
    };
    a.keys().chain(b.keys()).all(|key| same(value(a, key).as_ref(), value(b, key).as_ref()))
}

fn empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}
