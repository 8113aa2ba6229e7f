//! The rules of a custom resource: the schema, the validation rules and the printer columns of each of its versions.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use api::field::{Error, ErrorType, Errors, Path as FieldPath};
use api::kinds::{Change, Rules};
use api::schema::Rules as Validations;
use api::{Document, GroupVersion, Schema, Timestamp, time};
use serde_json::{Value, json};

use super::json_path::Path;
use crate::row::Version;

/// Made from a definition.
pub(crate) struct Custom {
    versions: BTreeMap<String, Own>,
    /// Group and version of what is stored.
    storage: GroupVersion,
    /// Whether more than the apiVersion differs between versions.
    converted: bool,
    /// Fields that a selector may name in some version, with their paths.
    selectable: Vec<(String, Path)>,
}

/// What is one version's own.
struct Own {
    schema: Schema,
    rules: Option<Validations>,
    columns: Vec<(String, Path)>,
    /// Fields that a selector may name.
    selectable: Vec<String>,
}

impl Custom {
    /// `described` are the definition's own words for `versions`.
    pub(super) fn new(versions: &[Version], described: &[Value], storage: GroupVersion, converted: bool) -> Self {
        let own = |version: &Version| {
            let found = described.iter().find(|described| text_at(described, "name") == version.name);
            let described = found.unwrap_or(&Value::Null);
            let schema = described.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
            (version.name.clone(), Own::new(version.schema.clone(), Validations::compile(schema), described))
        };
        let versions: BTreeMap<String, Own> = versions.iter().map(own).collect();
        let names: BTreeSet<&String> = versions.values().flat_map(|own| &own.selectable).collect();
        let selectable = names.into_iter().map(|name| (name.clone(), Path::parse(name))).collect();
        Self { versions, storage, converted, selectable }
    }

    /// What belongs to a version; to the stored one where there is no such version.
    fn own(&self, version: &str) -> Option<&Own> {
        self.versions.get(version).or_else(|| self.versions.get(&self.storage.version))
    }

    fn evaluated(&self, new: &Document, change: &Change<'_>) -> (Errors, Vec<String>) {
        let rules = self.own(change.version).and_then(|own| own.rules.as_ref());
        rules.map(|rules| rules.check(new.value(), change.old.map(Document::value))).unwrap_or_default()
    }

    /// A stored object as readers get it: pruned and completed by the schema of the version it is stored in, and in
    /// the storage version where only the apiVersion differs. `None`: just as it is stored.
    pub(crate) fn read(&self, stored: &[u8]) -> Option<Document> {
        let before = Document::parse(stored).ok()?;
        let GroupVersion { version, .. } = GroupVersion::parse(before.api_version())?;
        let own = self.versions.get(&version)?;
        let mut document = before.clone();
        own.schema.prune(&mut document);
        own.schema.default(&mut document);
        if !self.converted && version != self.storage.version {
            document.set("/apiVersion", self.storage.to_string());
            self.own(&self.storage.version)?.schema.prune(&mut document);
        }
        (document != before).then_some(document)
    }

    /// Whether objects are stored in that apiVersion by now.
    pub(crate) fn stores(&self, api_version: &str) -> bool {
        GroupVersion::parse(api_version).as_ref() == Some(&self.storage)
    }

    /// The fields that a selector may name in a version.
    pub(crate) fn selectable_in(&self, version: &str) -> Vec<String> {
        self.versions.get(version).map(|own| own.selectable.clone()).unwrap_or_default()
    }
}

fn text_at(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Own {
    fn new(schema: Schema, rules: Option<Validations>, described: &Value) -> Self {
        let listed = |key: &str| described.get(key).and_then(Value::as_array).into_iter().flatten();
        let own = listed("additionalPrinterColumns");
        let own = own.map(|column| (text_at(column, "type"), Path::parse(&text_at(column, "jsonPath"))));
        let mut columns: Vec<(String, Path)> = own.collect();
        let paths = listed("selectableFields").map(|field| text_at(field, "jsonPath"));
        let selectable = paths.map(|path| path.strip_prefix('.').unwrap_or(&path).to_owned()).collect();
        if columns.is_empty() {
            columns.push(("date".into(), Path::parse(".metadata.creationTimestamp")));
        }
        Self { schema, rules, columns, selectable }
    }
}

/// Errors after which rules are not evaluated: the object is not what they expect.
fn blocks(error: &Error) -> bool {
    use ErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

impl Rules for Custom {
    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let Some(own) = self.own(change.version) else { return Errors::new() };
        let mut errors = own.schema.check(new, change.old);
        // That it has no name is found elsewhere.
        if own.rules.is_some() && (new.name().is_empty() || errors.iter().any(blocks)) {
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
        _ => text(first).into(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
