//! CustomResourceDefinition: names, versions, and that schemas are structural at their root.
//! Its conditions (NamesAccepted, Established) are set by the server that serves it.

mod schema;
mod structural;
#[cfg(test)]
mod tests;

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
        let conversion = object(spec, "conversion");
        fill(conversion, "strategy", "None");
        if let Some(service) = conversion.pointer_mut("/webhook/clientConfig/service").filter(|s| s.is_object()) {
            fill(service, "port", 443);
        }
        store_versions(definition);
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
        if change.subresource == "status" {
            return Errors::new();
        }
        let nothing = Value::Null;
        let (spec, path) = (new.at("/spec").unwrap_or(&nothing), Path::new("spec"));
        let mut errors: Errors = name(new, spec).into_iter().collect();
        errors.extend(validate_spec(spec, &path));
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
    (definition.name() != wanted).then(|| Error::invalid(path, definition.name(), detail))
}

fn validate_spec(spec: &Value, path: &Path) -> Errors {
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
    errors.extend(versions(spec, path));
    errors.extend(own_names(get(spec, "names").unwrap_or(&Value::Null), &path.child("names")));
    if flag(spec, "preserveUnknownFields") {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema \
                      instead";
        errors.push(Error::invalid(path.child("preserveUnknownFields"), true, detail));
    }
    errors
}

fn versions(spec: &Value, path: &Path) -> Errors {
    let versions = list(spec, "versions");
    let value = || spec.get("versions").cloned().unwrap_or_default();
    let mut errors = Errors::new();
    for (i, version) in versions.iter().enumerate() {
        let item = path.child("versions").index(i);
        let messages = names::label_1035(text(version, "name"));
        if !messages.is_empty() {
            errors.push(Error::invalid(item.child("name"), text(version, "name"), messages.join(",")));
        }
        // What all versions say alike stands above them internally, and errors name it there.
        let place = |field: &str, above: &str| {
            let alike = versions.iter().all(|v| v.get(field) == version.get(field));
            if alike { path.child(above) } else { item.child(field) }
        };
        if i == 0 || versions.first().map(|v| v.get("schema")) != Some(version.get("schema")) {
            errors.extend(schema_of(version, &item, &place("schema", "validation")));
        }
        let columns_path = place("additionalPrinterColumns", "additionalPrinterColumns");
        errors.extend(columns(list(version, "additionalPrinterColumns"), &columns_path));
        if let Some(scale) = version.pointer("/subresources/scale").filter(|s| !s.is_null()) {
            errors.extend(scale_paths(scale, &place("subresources", "subresources").child("scale")));
        }
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

fn schema_of(version: &Value, item: &Path, place: &Path) -> Errors {
    match version.pointer("/schema/openAPIV3Schema").filter(|s| !s.is_null()) {
        None => vec![Error::required(item.child("schema").child("openAPIV3Schema"), "")],
        Some(described) => {
            let with_status = version.pointer("/subresources/status").is_some_and(|s| !s.is_null());
            schema::validate(described, with_status, place)
        }
    }
}

fn own_names(own: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(own, field).is_empty() {
            errors.push(Error::required(path.child(field), ""));
        }
    }
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

fn columns(columns: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let types = ["boolean", "date", "integer", "number", "string"];
    for (i, column) in columns.iter().enumerate() {
        let path = path.index(i);
        if text(column, "name").is_empty() {
            errors.push(Error::required(path.child("name"), ""));
        }
        let kind = text(column, "type");
        let detail = format!("must be one of {}", types.join(","));
        match kind {
            "" => errors.push(Error::required(path.child("type"), detail)),
            kind if !types.contains(&kind) => errors.push(Error::invalid(path.child("type"), kind, detail)),
            _ => {}
        }
        if text(column, "jsonPath").is_empty() {
            errors.push(Error::required(path.child("JSONPath"), ""));
        }
    }
    errors
}

fn scale_paths(scale: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (field, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        match text(scale, field) {
            "" => errors.push(Error::required(path.child(field), "")),
            value if !value.starts_with(root) => {
                let detail = format!("should be a json path under {}", root.trim_end_matches('.'));
                errors.push(Error::invalid(path.child(field), value, detail));
            }
            _ => {}
        }
    }
    errors
}
