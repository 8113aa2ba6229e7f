//! Namespace.

use serde_json::{Value, json};

use super::cell::{self, row};
use super::{Change, NameFormat, Operation, Rules};
use crate::field::{Error, Errors, Path};
use crate::validation::{invalid_each, text};
use crate::{Document, Timestamp, tree};

/// Rules of `v1 Namespace`.
pub(super) struct Namespace;

const KUBERNETES: &str = "kubernetes";

impl Rules for Namespace {
    fn default(&self, namespace: &mut Document) {
        label(namespace);
        tree::fill(tree::object(namespace.value_mut(), "status"), "phase", "Active");
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        match (change.operation, change.subresource, change.old) {
            (Operation::Create, ..) => create(new),
            (Operation::Update, "", Some(old)) => keep_finalizers(new, old),
            _ => {}
        }
        label(new);
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        match change.subresource {
            "finalize" => finalizers(new),
            "status" => phase(new),
            _ => Errors::new(),
        }
    }

    fn name_format(&self) -> NameFormat {
        NameFormat::Label
    }

    fn selectable(&self, namespace: &Document) -> Vec<(&'static str, String)> {
        vec![("status.phase", namespace.str_at("/status/phase").into()), ("name", namespace.name().into())]
    }

    fn cells(&self, namespace: &Document, now: Timestamp) -> Option<Vec<Value>> {
        row![namespace.name(), namespace.str_at("/status/phase"), cell::age(namespace, now)]
    }
}

/// The label that selectors of namespaces by name go by.
fn label(namespace: &mut Document) {
    let name = namespace.name().to_owned();
    if !name.is_empty() {
        namespace.set("/metadata/labels/kubernetes.io~1metadata.name", name);
    }
}

fn create(namespace: &mut Document) {
    namespace.set("/status", json!({"phase": "Active"}));
    let mut finalizers = namespace.list_at("/spec/finalizers").to_vec();
    if !finalizers.iter().any(|f| f == KUBERNETES) {
        finalizers.push(KUBERNETES.into());
    }
    namespace.set("/spec/finalizers", finalizers);
}

fn keep_finalizers(new: &mut Document, old: &Document) {
    let finalizers = old.at("/spec/finalizers").cloned();
    tree::replace(tree::object(new.value_mut(), "spec"), "finalizers", finalizers);
}

fn finalizers(new: &Document) -> Errors {
    let path = Path::new("spec").child("finalizers");
    let mut errors = Errors::new();
    for (i, name) in new.list_at("/spec/finalizers").iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(i);
        errors.extend(invalid_each(&path, name, text::qualified_name(name)));
        if !name.contains('/') && name != KUBERNETES {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(Error::invalid(path, name, detail));
        }
    }
    errors
}

fn phase(new: &Document) -> Errors {
    let path = Path::new("status").child("Phase");
    let phase = new.str_at("/status/phase");
    let detail = match (new.deleting(), phase) {
        (false, "Active") | (true, "Terminating") => return Errors::new(),
        (false, _) => "may only be 'Active' if `deletionTimestamp` is empty",
        (true, _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
    };
    vec![Error::invalid(path, phase, detail)]
}
