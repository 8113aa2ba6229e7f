//! CustomResourceDefinition: names, versions, and that schemas are structural at their root.
//! Its conditions (NamesAccepted, Established) are set by the server that serves it.

mod approval;
mod conversion;
mod schema;
mod structural;
#[cfg(test)]
mod tests;
mod version;

pub use approval::Approval;
pub use conversion::ca_bundle_fault;

use serde_json::{Value, json};

use super::cell::{self, row};
use super::{Change, Operation, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, flag, get, list, object, text, texts};
use crate::validation::{immutable, supported, text as names};
use crate::{Document, Timestamp};

/// Rules of `apiextensions.k8s.io/v1 CustomResourceDefinition`.
pub(super) struct CustomResourceDefinition;

impl Rules for CustomResourceDefinition {
    fn default(&self, definition: &mut Document) {
        let spec = object(definition.value_mut(), "spec");
        let kind = spec.pointer("/names/kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        let own = object(spec, "names");
        fill(own, "singular", kind.to_lowercase());
        if !kind.is_empty() {
            fill(own, "listKind", format!("{kind}List"));
        }
        conversion::default(spec);
        if definition.list_at("/status/storedVersions").is_empty() {
            store_versions(definition);
        }
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        if change.operation == Operation::Create {
            new.set("/status", json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}}));
        }
        if change.subresource.is_empty() {
            store_versions(new);
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let nothing = Value::Null;
        let accepted = new.at("/status/acceptedNames").unwrap_or(&nothing);
        let accepted = name_forms(accepted, &Path::new("status").child("acceptedNames"));
        if change.subresource == "status" {
            return accepted;
        }
        let (spec, path) = (new.at("/spec").unwrap_or(&nothing), Path::new("spec"));
        let mut errors: Errors = name(new, spec).into_iter().collect();
        errors.extend(validate_spec(spec, change.old, &path));
        if let Some(old) = change.old {
            let mut fixed = vec!["group", "names/plural"];
            if cell::is_true(old, "Established") {
                fixed.extend(["scope", "names/kind"]);
            }
            for field in fixed {
                let pointer = format!("/spec/{field}");
                let path = path.child(&field.replace('/', "."));
                errors.extend(immutable(new.at(&pointer), old.at(&pointer), &path));
            }
        }
        errors.extend(accepted);
        errors.extend(stored_versions(new, &Path::new("status").child("storedVersions")));
        errors.extend(approval::validate(new, change.old));
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, definition: &Document, _now: Timestamp) -> Option<Vec<Value>> {
        let spec = definition.at("/spec").unwrap_or(&Value::Null);
        let own = get(spec, "names").unwrap_or(&Value::Null);
        let label = |v: &Value| format!("{}{}", text(v, "name"), if flag(v, "storage") { "(storage)" } else { "" });
        let served = list(spec, "versions").iter().filter(|v| flag(v, "served"));
        let mut versions: Vec<String> = served.map(label).collect();
        versions.sort();
        row![
            definition.name(),
            text(spec, "scope"),
            versions.join(","),
            definition.str_at("/metadata/creationTimestamp"),
            text(spec, "group"),
            text(own, "kind"),
            texts(own, "shortNames").join(","),
            cell::is_true(definition, "Established"),
        ]
    }
}

/// `status.storedVersions` names every version that objects may be stored in.
fn store_versions(definition: &mut Document) {
    let storage = definition.list_at("/spec/versions").iter().find(|v| flag(v, "storage"));
    let Some(name) = storage.map(|v| text(v, "name").to_owned()) else { return };
    let mut stored = definition.list_at("/status/storedVersions").to_vec();
    if !stored.iter().any(|v| *v == name) {
        stored.push(name.into());
        definition.set("/status/storedVersions", stored);
    }
}

fn name(definition: &Document, spec: &Value) -> Option<Error> {
    let plural = spec.pointer("/names/plural").and_then(Value::as_str).unwrap_or_default();
    let wanted = format!("{plural}.{}", text(spec, "group"));
    let detail = r#"must be spec.names.plural+"."+spec.group"#;
    let path = Path::new("metadata").child("name");
    let named = !definition.name().is_empty();
    (named && definition.name() != wanted).then(|| Error::invalid(path, definition.name(), detail))
}

fn validate_spec(spec: &Value, old: Option<&Document>, path: &Path) -> Errors {
    let group = text(spec, "group");
    let messages = names::subdomain(group);
    let mut errors = match group {
        "" => vec![Error::required(path.child("group"), "")],
        group if !messages.is_empty() => vec![Error::invalid(path.child("group"), group, messages.join(","))],
        group if !group.contains('.') => {
            let detail = "should be a domain with at least one dot";
            vec![Error::invalid(path.child("group"), group, detail)]
        }
        _ => Errors::new(),
    };
    errors.extend(match text(spec, "scope") {
        "" => vec![Error::required(path.child("scope"), "")],
        scope => supported(scope, &path.child("scope"), &["Cluster", "Namespaced"]),
    });
    errors.extend(version::validate(spec, old, path));
    errors.extend(own_names(get(spec, "names").unwrap_or(&Value::Null), &path.child("names")));
    if flag(spec, "preserveUnknownFields") {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema \
                      instead";
        errors.push(Error::invalid(path.child("preserveUnknownFields"), true, detail));
    }
    errors.extend(conversion::validate(spec, old, &path.child("conversion")));
    errors
}

/// A version that objects may still be stored in stays a version.
fn stored_versions(definition: &Document, path: &Path) -> Errors {
    let stored: Vec<&str> = definition.list_at("/status/storedVersions").iter().filter_map(Value::as_str).collect();
    if stored.is_empty() {
        return vec![Error::invalid(path.clone(), Value::Null, "must have at least one stored version")];
    }
    let versions = definition.list_at("/spec/versions");
    let storage = versions.iter().filter(|v| flag(v, "storage")).map(|v| text(v, "name"));
    let unnamed = storage.filter(|name| !stored.contains(name));
    let mut errors: Errors = unnamed
        .map(|name| Error::invalid(path.clone(), json!(stored), format!("must have the storage version {name}")))
        .collect();
    for (at, name) in stored.iter().enumerate().filter(|(_, name)| !versions.iter().any(|v| text(v, "name") == **name))
    {
        let why = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until \
             a storage migration ensures no data remains persisted in {name} and removes {name} from \
             status.storedVersions"
        );
        errors.push(Error::invalid(path.index(at), *name, why));
    }
    errors
}

fn own_names(own: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(own, field).is_empty() {
            errors.push(Error::required(path.child(field), ""));
        }
    }
    errors.extend(name_forms(own, path));
    errors
}

/// The forms of names, those that are there.
fn name_forms(own: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for field in ["plural", "singular"] {
        errors.extend(label(text(own, field), path.child(field), ""));
    }
    for field in ["kind", "listKind"] {
        let hint = "may have mixed case, but should otherwise match: ";
        let lower = label(&text(own, field).to_lowercase(), path.child(field), hint);
        errors.extend(lower.map(|error| Error { value: text(own, field).into(), ..error }));
    }
    let kind = text(own, "kind");
    for field in ["shortNames", "categories"] {
        for (i, name) in texts(own, field).iter().enumerate() {
            errors.extend(label(name, path.child(field).index(i), ""));
        }
    }
    if !kind.is_empty() && kind == text(own, "listKind") {
        errors.push(Error::invalid(path.child("listKind"), kind, "kind and listKind may not be the same"));
    }
    errors
}

fn label(name: &str, path: Path, hint: &str) -> Option<Error> {
    let messages = if name.is_empty() { Vec::new() } else { names::label_1035(name) };
    (!messages.is_empty()).then(|| Error::invalid(path, name, format!("{hint}{}", messages.join(","))))
}
