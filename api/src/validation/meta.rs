//! Object metadata (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::Value;

use super::{immutable, invalid_each, labels, text};
use crate::field::{Error, Errors, Path};
use crate::kinds::NameFormat;
use crate::tree;
use crate::{Document, GroupVersion};

/// Annotations of one object may have this many bytes, keys and values together.
const ANNOTATIONS_MAX: usize = 256 * 1024;
/// The two finalizers that belong to garbage collection.
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What is wrong with the metadata of an object that is to be created; its name has been generated already.
/// The write machine calls this for every object.
pub fn object_meta(new: &Document, namespaced: bool, format: NameFormat) -> Errors {
    let mut errors = metadata(new, namespaced, |text, prefix| name_messages(format, text, prefix));
    errors.extend(standard_finalizers(new));
    errors
}

/// What is wrong with the metadata of an object that replaces `old`. The write machine calls this for every object,
/// subresources too, after it has carried over uid, timestamps and generation.
pub fn object_meta_update(new: &Document, old: &Document, namespaced: bool) -> Errors {
    let mut errors = metadata(new, namespaced, text::path_segment);
    errors.extend(update(new, old));
    errors.extend(standard_finalizers(new));
    errors
}

/// What is wrong with a name in a format. A `prefix` may end with a dash.
pub fn name_messages(format: NameFormat, name: &str, prefix: bool) -> text::Messages {
    let masked = match name.strip_suffix('-') {
        Some(rest) if prefix && !rest.is_empty() => format!("{rest}a"),
        _ => name.to_owned(),
    };
    match format {
        NameFormat::Subdomain => text::subdomain(&masked),
        NameFormat::Label => text::label(&masked),
        NameFormat::Rfc1035Label => text::label_1035(&masked),
        NameFormat::PathSegment => text::path_segment(name, prefix),
    }
}

/// The finalizers' names, and that garbage collection's two do not meet.
pub fn finalizers(finalizers: &[Value], path: &Path) -> Errors {
    let names: Vec<&str> = finalizers.iter().filter_map(Value::as_str).collect();
    let mut errors: Errors =
        names.iter().flat_map(|name| invalid_each(path, *name, text::qualified_name(name))).collect();
    if names.contains(&FOREGROUND) && names.contains(&ORPHAN) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(Error::invalid(path.clone(), finalizers.to_vec(), detail));
    }
    errors
}

fn is_built_in(object: &Document) -> bool {
    let version = GroupVersion::parse(object.api_version());
    version.is_some_and(|v| crate::Schema::has_kind(&v.group, &v.version, object.kind()))
}

/// Built-in kinds have finalizers with a domain, and a few standard ones; some upstream has forgotten there.
fn standard_finalizers(new: &Document) -> Errors {
    let unchecked = ["PodDisruptionBudget", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    if !is_built_in(new) || unchecked.contains(&new.kind()) {
        return Errors::new();
    }
    let path = Path::new("metadata").child("finalizers");
    let standard = [FOREGROUND, ORPHAN, "kubernetes"];
    let odd = new.finalizers().enumerate().filter(|(_, name)| !name.contains('/') && !standard.contains(name));
    let detail = "name is neither a standard finalizer name nor is it fully qualified";
    odd.map(|(i, name)| Error::invalid(path.index(i), name, detail)).collect()
}

/// The annotations' keys and their size.
pub fn annotations(annotations: Option<&Value>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut size = 0;
    for (key, value) in tree::map(annotations) {
        errors.extend(invalid_each(path, key.as_str(), text::qualified_name(&key.to_lowercase())));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(Error::too_long(path.clone(), ANNOTATIONS_MAX));
    }
    errors
}

fn metadata(new: &Document, namespaced: bool, name: impl Fn(&str, bool) -> text::Messages) -> Errors {
    let path = Path::new("metadata");
    let mut errors = names(new, &path, name);
    errors.extend(namespace(new.namespace(), namespaced, &path.child("namespace")));
    errors.extend(generation(new, &path));
    errors.extend(common(new, &path));
    errors.extend(finalizers(new.list_at("/metadata/finalizers"), &path.child("finalizers")));
    errors.extend(managed_fields(new.list_at("/metadata/managedFields"), &path.child("managedFields")));
    errors
}

fn names(new: &Document, path: &Path, name: impl Fn(&str, bool) -> text::Messages) -> Errors {
    let mut errors = Errors::new();
    let generate = new.str_at("/metadata/generateName");
    if !generate.is_empty() {
        errors.extend(invalid_each(&path.child("generateName"), generate, name(generate, true)));
    }
    if new.name().is_empty() {
        errors.push(Error::required(path.child("name"), "name or generateName is required"));
    } else {
        errors.extend(invalid_each(&path.child("name"), new.name(), name(new.name(), false)));
    }
    errors
}

fn namespace(namespace: &str, namespaced: bool, path: &Path) -> Errors {
    match (namespaced, namespace) {
        (true, "") => vec![Error::required(path.clone(), "")],
        (true, namespace) => invalid_each(path, namespace, text::label(namespace)),
        (false, "") => Errors::new(),
        (false, _) => vec![Error::forbidden(path.clone(), "not allowed on this type")],
    }
}

fn generation(new: &Document, path: &Path) -> Errors {
    match new.i64_at("/metadata/generation") {
        Some(n) if n < 0 => {
            vec![Error::invalid(path.child("generation"), n, "must be greater than or equal to 0")]
        }
        _ => Errors::new(),
    }
}

/// What creation and change check alike.
fn common(new: &Document, path: &Path) -> Errors {
    let mut errors = labels::labels(new.at("/metadata/labels"), &path.child("labels"));
    errors.extend(annotations(new.at("/metadata/annotations"), &path.child("annotations")));
    errors.extend(owner_references(new.list_at("/metadata/ownerReferences"), &path.child("ownerReferences")));
    errors
}

fn owner_references(owners: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut first: Option<String> = None;
    for (i, owner) in owners.iter().enumerate() {
        errors.extend(owner_reference(owner, &path.index(i)));
        if owner.get("controller").and_then(Value::as_bool) != Some(true) {
            continue;
        }
        let name = format!("{}/{}", tree::text(owner, "kind"), tree::text(owner, "name"));
        match &first {
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
                     {name}"
                );
                let shown: Vec<String> = owners.iter().map(shown_owner).collect();
                let mut error = Error::invalid(path.clone(), owners.to_vec(), detail);
                error.shown = Some(format!("[{}]", shown.join(",")));
                errors.push(error);
            }
            None => first = Some(name),
        }
    }
    errors
}

/// An owner as Go prints it: not in the order of the fields' numbers.
fn shown_owner(owner: &Value) -> String {
    let always = ["apiVersion", "kind", "name", "uid"].map(|field| (field, Value::from(tree::text(owner, field))));
    let flag = |field: &'static str| Some((field, Value::from(owner.get(field)?.as_bool()?)));
    let flags = ["controller", "blockOwnerDeletion"].into_iter().filter_map(flag);
    let fields: Vec<String> =
        always.into_iter().chain(flags).map(|(field, value)| format!("{}:{value}", Value::from(field))).collect();
    format!("{{{}}}", fields.join(","))
}

fn owner_reference(owner: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let api_version = tree::text(owner, "apiVersion");
    let parsed = GroupVersion::parse(api_version).filter(|gv| !gv.version.is_empty());
    if !api_version.is_empty() && parsed.is_none() {
        let detail = "must be <group>/<version> or <version>";
        errors.push(Error::invalid(path.child("apiVersion"), api_version, detail));
    }
    for field in ["apiVersion", "kind", "name", "uid"] {
        if tree::text(owner, field).is_empty() {
            errors.push(Error::required(path.child(field), "must not be empty"));
        }
    }
    if api_version == "v1" && tree::text(owner, "kind") == "Event" {
        let detail = "/v1, Kind=Event is disallowed from being an owner";
        errors.push(Error::invalid(path.clone(), owner.clone(), detail));
    }
    errors
}

fn managed_fields(entries: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        match tree::text(entry, "operation") {
            "" => errors.push(Error::required(path.child("operation"), "must not be empty")),
            "Apply" | "Update" => {}
            other => errors.push(Error::not_supported(path.child("operation"), other, &["Apply", "Update"])),
        }
        let kind = tree::text(entry, "fieldsType");
        if !matches!(kind, "" | "FieldsV1") {
            errors.push(Error::invalid(path.child("fieldsType"), kind, "must be `FieldsV1`"));
        }
        errors.extend(field_manager(tree::text(entry, "manager"), &path.child("manager")));
        if tree::text(entry, "subresource").len() > 256 {
            errors.push(Error::too_long(path.child("subresource"), 256));
        }
    }
    errors
}

/// A field manager's name: up to 128 printable characters.
pub fn field_manager(manager: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if manager.len() > 128 {
        errors.push(Error::too_long(path.clone(), 128));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(Error::invalid(path.clone(), manager, detail));
    }
    errors
}

fn update(new: &Document, old: &Document) -> Errors {
    let path = Path::new("metadata");
    let mut errors = Errors::new();
    if old.deleting() {
        errors.extend(no_new_finalizers(new, old, &path.child("finalizers")));
    }
    if new.resource_version().is_empty() {
        errors.push(Error::invalid(path.child("resourceVersion"), "", "must be specified for an update"));
    }
    let generation = |doc: &Document| doc.i64_at("/metadata/generation").unwrap_or_default();
    if generation(new) < generation(old) {
        errors.push(Error::invalid(path.child("generation"), generation(new), "must not be decremented"));
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let pointer = format!("/metadata/{field}");
        errors.extend(immutable(new.at(&pointer), old.at(&pointer), &path.child(field)));
    }
    errors
}

fn no_new_finalizers(new: &Document, old: &Document, path: &Path) -> Errors {
    let kept: Vec<&str> = old.finalizers().collect();
    let mut extra: Vec<&str> = new.finalizers().filter(|f| !kept.contains(f)).collect();
    if extra.is_empty() {
        return Errors::new();
    }
    extra.sort_unstable();
    let shown: Vec<String> = extra.iter().map(|f| format!("{f:?}")).collect();
    let shown = format!("[]string{{{}}}", shown.join(", "));
    let detail = format!("no new finalizers can be added if the object is being deleted, found new finalizers {shown}");
    vec![Error::forbidden(path.clone(), detail)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(meta: Value, namespaced: bool, format: NameFormat) -> Vec<String> {
        let doc = Document::new(json!({"metadata": meta})).unwrap_or_default();
        object_meta(&doc, namespaced, format).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn creation_names_what_is_wrong_with_metadata() {
        let good = json!({"name": "a.b", "namespace": "x", "labels": {"a/b": ""}, "finalizers": ["a.io/b"]});
        assert_eq!(check(good, true, NameFormat::Subdomain), Vec::<String>::new());
        let cases = [
            (json!({}), "metadata.name: Required value: name or generateName is required"),
            (json!({"name": "a", "namespace": "x"}), "metadata.namespace: Forbidden: not allowed on this type"),
            (json!({"name": "a", "generateName": "-"}), "metadata.generateName: Invalid value: \"-\": a lowercase RFC"),
            (json!({"name": "a", "labels": {"a": "b c"}}), "metadata.labels: Invalid value: \"b c\": a valid label"),
            (json!({"name": "a", "finalizers": [""]}), "metadata.finalizers: Invalid value: \"\": name part must be"),
            (
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
                "metadata.ownerReferences[0].uid: Required value: must not be empty",
            ),
        ];
        for (meta, start) in cases {
            let errors = check(meta, false, NameFormat::Subdomain);
            assert!(errors.iter().any(|e| e.starts_with(start)), "{start}: {errors:?}");
        }
    }

    #[test]
    fn generated_names_may_end_with_a_dash_before_their_suffix() {
        let meta = json!({"generateName": "a-", "name": "a-x"});
        assert_eq!(check(meta, false, NameFormat::Label), Vec::<String>::new());
    }

    #[test]
    fn an_update_keeps_identity() {
        let doc = |meta: Value| Document::new(json!({"metadata": meta})).unwrap_or_default();
        let old = doc(json!({"name": "a", "uid": "1", "resourceVersion": "5", "deletionTimestamp": "t"}));
        let new = doc(json!({"name": "a", "uid": "2", "deletionTimestamp": "t", "finalizers": ["a.io/b"]}));
        let errors: Vec<String> = object_meta_update(&new, &old, false).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
                 new finalizers []string{\"a.io/b\"}",
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }
}
