//! The rules of a custom resource: the schema, the validation rules and the printer columns of each of its versions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::field::{Error, ErrorType, Errors, Path as FieldPath};
use api::kinds::{Change, Rules};
use api::schema::Rules as Validations;
use api::{Document, GroupVersion, Schema, Timestamp, time};
use serde_json::{Value, json};

use super::json_path::Path;
use crate::row::Version;

/// Made from a definition.
pub(super) struct Custom {
    versions: BTreeMap<String, Own>,
    storage: String,
    /// Fields that a selector may name, with their paths.
    selectable: Vec<(String, Path)>,
}

/// What is one version's own.
struct Own {
    schema: Schema,
    rules: Option<Validations>,
    columns: Vec<(String, Path)>,
}

impl Custom {
    pub(super) fn new(versions: &[Version], described: &[Value], stored: &Value) -> Self {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let own = |version: &Version| {
            let found = described.iter().find(|described| text(described, "name") == version.name);
            let described = found.unwrap_or(&Value::Null);
            let schema = described.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
            (version.name.clone(), Own::new(version.schema.clone(), Validations::compile(schema), described))
        };
        let selectable = stored.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
        let selectable = selectable.map(|field| text(field, "jsonPath"));
        Self {
            versions: versions.iter().map(own).collect(),
            storage: text(stored, "name"),
            selectable: selectable.map(|p| (p.trim_start_matches('.').to_owned(), Path::parse(&p))).collect(),
        }
    }

    /// What belongs to a version; to the stored one where there is no such version.
    fn own(&self, version: &str) -> Option<&Own> {
        self.versions.get(version).or_else(|| self.versions.get(&self.storage))
    }

    fn evaluated(&self, new: &Document, change: &Change<'_>) -> (Errors, Vec<String>) {
        let Some(own) = self.own(change.version) else { return Default::default() };
        let Some(rules) = &own.rules else { return Default::default() };
        // Old objects are compared as they are read: with the defaults of today.
        let old = change.old.map(|old| {
            let mut old = old.clone();
            own.schema.default(&mut old);
            old
        });
        rules.check(new.value(), old.as_ref().map(Document::value))
    }
}

impl Own {
    fn new(schema: Schema, rules: Option<Validations>, described: &Value) -> Self {
        let text = |column: &Value, key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let listed = described.get("additionalPrinterColumns").and_then(Value::as_array);
        let own = listed.into_iter().flatten().map(|c| (text(c, "type"), Path::parse(&text(c, "jsonPath"))));
        let mut columns: Vec<(String, Path)> = own.collect();
        if columns.is_empty() {
            columns.push(("date".into(), Path::parse(".metadata.creationTimestamp")));
        }
        Self { schema, rules, columns }
    }
}

/// Errors after which rules are not evaluated: the object is not what they expect.
fn blocks(error: &Error) -> bool {
    matches!(error.kind, ErrorType::Required | ErrorType::TooLong | ErrorType::TooMany | ErrorType::TypeInvalid)
}

impl Rules for Custom {
    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let Some(own) = self.own(change.version) else { return Errors::new() };
        let mut errors = own.schema.check(&shown(new, change.version));
        if own.rules.is_some() && errors.iter().any(blocks) {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing \
                          errors to complete validation";
            errors.push(Error::invalid(FieldPath::default(), Value::Null, detail));
        } else {
            errors.extend(self.evaluated(new, change).0);
        }
        errors
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        // Only what was there before is let pass with a warning.
        if change.old.is_some() { self.evaluated(new, change).1 } else { Vec::new() }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn fields(&self, object: &Document) -> Vec<(Cow<'static, str>, String)> {
        let value = |path: &Path| path.values(object.value()).first().map(|value| text(value)).unwrap_or_default();
        self.selectable.iter().map(|(name, path)| (Cow::Owned(name.clone()), value(path))).collect()
    }

    fn create_on_update(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, object: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let version = GroupVersion::parse(object.api_version()).map(|found| found.version).unwrap_or_default();
        let own = self.own(&version)?.columns.iter().map(|(kind, path)| cell(kind, &path.values(object.value()), now));
        Some(std::iter::once(json!(object.name())).chain(own).collect())
    }
}

/// The stored form in the version that is checked.
fn shown<'d>(stored: &'d Document, version: &str) -> Cow<'d, Document> {
    match GroupVersion::parse(stored.api_version()) {
        Some(found) if found.version != version => {
            let mut document = stored.clone();
            document.set("/apiVersion", GroupVersion { version: version.into(), ..found }.to_string());
            Cow::Owned(document)
        }
        _ => Cow::Borrowed(stored),
    }
}

/// A cell by its column's type; null where the path leads nowhere or to another type.
fn cell(kind: &str, values: &[&Value], now: Timestamp) -> Value {
    let Some(first) = values.first() else { return Value::Null };
    match kind {
        "date" => match first.as_str() {
            Some(text) => time::since(text, now).into(),
            None => Value::Null,
        },
        "integer" => first.as_i64().map_or(Value::Null, Value::from),
        "number" => first.as_f64().map_or(Value::Null, Value::from),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        _ => values.iter().map(|v| text(v)).collect::<Vec<_>>().join(",").into(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
