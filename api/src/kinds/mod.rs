//! What the schema table cannot say: one file a kind, and the list of them.
//!
//! To add a kind's rules: one file with a type that implements [`Rules`], one line in [`RULES`].

mod cell;
mod config_map;
mod deployment;
mod namespace;
mod pod;
mod pod_spec;
mod replica_set;
mod secret;
mod service;

use serde_json::Value;

use crate::{Document, Timestamp, field};

/// Whether an object comes into being or changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Update,
}

/// One write as a kind's rules see it. `new` is passed beside it, since some rules change it.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Create or update.
    pub operation: Operation,
    /// `""`, `status`, `scale`, `ephemeralcontainers`, `resize`, ...
    pub subresource: &'a str,
    /// The stored object, on update.
    pub old: Option<&'a Document>,
    /// The user's name, for rules that record it (CertificateSigningRequest).
    pub user: &'a str,
    /// The request's time.
    pub now: Timestamp,
}

/// A kind's own rules, called by the write machine in this order: `default`, (admission, `default` again,) `prepare`,
/// `validate`. All are pure.
pub trait Rules: Send + Sync {
    /// Defaults that depend on other fields. Runs on the storage version after the table's own defaults, on writes and
    /// when old stored objects are read.
    fn default(&self, _object: &mut Document) {}

    /// Sets what users may not: drops status on create, keeps it on update, bumps `metadata.generation`, and so on.
    /// The write machine has already done the common part (`generic` below) before it calls this.
    fn prepare(&self, _new: &mut Document, _change: &Change<'_>) {}

    /// What is wrong with the new object. Metadata itself is checked by the write machine.
    fn validate(&self, _new: &Document, _change: &Change<'_>) -> field::Errors {
        field::Errors::new()
    }

    /// `Warning` header texts.
    fn warnings(&self, _new: &Document, _change: &Change<'_>) -> Vec<String> {
        Vec::new()
    }

    /// Whether changes outside metadata and status bump `metadata.generation` (it then starts at 1).
    fn has_generation(&self) -> bool {
        false
    }

    /// How names are checked.
    fn name_format(&self) -> NameFormat {
        NameFormat::Subdomain
    }

    /// Fields besides metadata.name and metadata.namespace that a field selector may name, with this object's values
    /// (absent bools are "false", absent strings "").
    fn selectable(&self, _object: &Document) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Whether an update of an object that is not there creates it (`AllowCreateOnUpdate`).
    fn create_on_update(&self) -> bool {
        false
    }

    /// Whether an update may leave the resourceVersion out (`AllowUnconditionalUpdate`).
    fn unconditional_update(&self) -> bool {
        true
    }

    /// Whether a status that comes with a new object is kept, as a Node's is.
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// The `conditions` of the table row: those of a finished pod.
    fn row_conditions(&self, _object: &Document) -> Vec<Value> {
        Vec::new()
    }

    /// The cells of the table row, in the order of the schema table's columns; `None` means: only name and age.
    fn cells(&self, _object: &Document, _now: Timestamp) -> Option<Vec<Value>> {
        None
    }
}

/// Which names an object may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFormat {
    /// RFC 1123 subdomain, up to 253 characters: the rule for most kinds.
    Subdomain,
    /// RFC 1123 label, up to 63 characters: namespaces.
    Label,
    /// RFC 1035 label: services.
    Rfc1035Label,
    /// Anything that fits a path segment: RBAC kinds.
    PathSegment,
}

/// A kind without rules of its own.
pub struct Plain;

impl Rules for Plain {}

/// The rules of every built-in kind that has some: group, kind, rules.
pub const RULES: &[(&str, &str, &dyn Rules)] = &[
    ("", "ConfigMap", &config_map::ConfigMap),
    ("", "Namespace", &namespace::Namespace),
    ("", "Pod", &pod::Pod),
    ("", "Secret", &secret::Secret),
    ("", "Service", &service::Service),
    ("apps", "Deployment", &deployment::Deployment),
    ("apps", "ReplicaSet", &replica_set::ReplicaSet),
];

/// The rules of a built-in kind.
pub fn rules(group: &str, kind: &str) -> &'static dyn Rules {
    RULES.iter().find(|(g, k, _)| (*g, *k) == (group, kind)).map_or(&Plain, |(_, _, rules)| *rules)
}
