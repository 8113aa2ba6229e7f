//! Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::cell::{self, row};
use super::config_map::{MAX_SIZE, decoded_length, immutable, key_errors};
use super::{Change, Operation, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::{self, map};
use crate::{Document, Timestamp, validation};

/// Rules of `v1 Secret`.
pub(super) struct Secret;

impl Rules for Secret {
    fn default(&self, secret: &mut Document) {
        fold_string_data(secret);
        tree::fill(secret.value_mut(), "type", "Opaque");
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        if change.operation == Operation::Update && new.str_at("/type").is_empty() {
            let old = change.old.map_or("", |old| old.str_at("/type")).to_owned();
            new.set("/type", old);
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let mut errors = Errors::new();
        if let Some(old) = change.old {
            errors.extend(validation::immutable(new.at("/type"), old.at("/type"), &Path::new("type")));
            errors.extend(immutable(new, old, &["data"]));
        }
        errors.extend(contents(new));
        errors.extend(by_type(new));
        errors
    }

    fn selectable(&self, secret: &Document) -> Vec<(&'static str, String)> {
        vec![("type", secret.str_at("/type").into())]
    }

    fn cells(&self, secret: &Document, now: Timestamp) -> Option<Vec<Value>> {
        row![secret.name(), secret.str_at("/type"), map(secret.at("/data")).count(), cell::age(secret, now)]
    }
}

/// `stringData` is a way to write, never stored.
fn fold_string_data(secret: &mut Document) {
    let Some(Value::Object(plain)) = secret.remove("/stringData") else { return };
    let data = tree::object(secret.value_mut(), "data");
    for (key, value) in plain {
        tree::set(data, &key, STANDARD.encode(value.as_str().unwrap_or_default()));
    }
}

fn contents(new: &Document) -> Errors {
    let mut errors: Errors = map(new.at("/data")).flat_map(|(key, _)| key_errors("data", key)).collect();
    if map(new.at("/data")).map(|(_, value)| decoded_length(value)).sum::<usize>() > MAX_SIZE {
        errors.push(Error::too_long(Path::new("data"), MAX_SIZE));
    }
    errors
}

/// What the well-known types need.
fn by_type(new: &Document) -> Errors {
    let data = Path::new("data");
    let value = |key: &str| new.at("/data").and_then(|data| data.get(key));
    let missing = |keys: &[&str]| -> Errors {
        let absent = keys.iter().filter(|key| value(key).is_none());
        absent.map(|key| Error::required(data.key(key), "")).collect()
    };
    match new.str_at("/type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let path = Path::new("metadata.annotations").key(key);
            let named = new.annotation(key).is_some_and(|name| !name.is_empty());
            if named { Errors::new() } else { vec![Error::required(path, "")] }
        }
        "kubernetes.io/dockercfg" => docker(value(".dockercfg"), &data.key(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => docker(value(".dockerconfigjson"), &data.key(".dockerconfigjson")),
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            missing(&["username", "password"])
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(|v| v == "") => {
            vec![Error::required(data.key("ssh-privatekey"), "")]
        }
        "kubernetes.io/tls" => missing(&["tls.crt", "tls.key"]),
        _ => Errors::new(),
    }
}

fn docker(value: Option<&Value>, path: &Path) -> Errors {
    let Some(value) = value else { return vec![Error::required(path.clone(), "")] };
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    match serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        Ok(_) => Errors::new(),
        Err(_) => {
            let detail = json_error(&bytes);
            vec![Error::invalid(path.clone(), "<secret contents redacted>", detail)]
        }
    }
}

/// Go's words for what is no JSON object, as far as they can be told without its parser.
fn json_error(bytes: &[u8]) -> String {
    match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        None => "unexpected end of JSON input".into(),
        Some(b'{') => "unexpected end of JSON input".into(),
        Some(first) => {
            format!("invalid character '{}' looking for beginning of value", char::from(*first))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn string_data_overwrites_data() {
        let value = json!({"data": {"a": "MQ==", "b": "Mg=="}, "stringData": {"a": "x"}});
        let mut secret = Document::new(value).unwrap_or_default();
        Secret.default(&mut secret);
        assert_eq!(secret.value(), &json!({"data": {"a": "eA==", "b": "Mg=="}, "type": "Opaque"}));
    }
}
