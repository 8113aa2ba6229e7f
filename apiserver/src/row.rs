//! A resource is a row: a value at run time, for built-in and custom resources alike.
//!
//! Routes, discovery, OpenAPI, table columns and RBAC names derive from rows.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use api::kinds::Rules;
use api::schema::{Column, Scope};
use api::{Document, GroupKind, GroupResource, GroupVersion, GroupVersionKind, ObjectName, Schema};

use crate::conversion::Converter;
use crate::crd::Custom;
use crate::rows::Behaviour;

/// One resource.
#[derive(Clone)]
pub(crate) struct Resource {
    /// The group, empty for the core group.
    pub group: String,
    /// The plural, as paths and RBAC name it.
    pub plural: String,
    /// The singular.
    pub singular: String,
    /// The kind.
    pub kind: String,
    /// The kind of its lists.
    pub list_kind: String,
    /// Short names.
    pub short: Vec<String>,
    /// Categories such as `all`.
    pub categories: Vec<String>,
    /// Where objects stand.
    pub scope: Scope,
    /// The verbs it has.
    pub verbs: Vec<String>,
    /// Its versions, the preferred one first.
    pub versions: Vec<Version>,
    /// Who knows how objects get from one version to another, where more than the apiVersion differs.
    pub converter: Option<Arc<Converter>>,
    /// Its kind's own rules.
    pub strategy: Strategy,
    /// Where objects are kept; `None` where nothing is stored (reviews).
    pub storage: Option<Storage>,
    /// How it differs from a plain resource.
    pub behaviour: Behaviour,
    /// Whether it was added by a CustomResourceDefinition.
    pub custom: bool,
    /// Whether that definition is being deleted: nothing is created any more.
    pub ending: bool,
}

/// A subresource.
#[derive(Clone, Debug)]
pub(crate) struct Subresource {
    /// `status`, `scale`, ...
    pub name: String,
    /// The kind it takes and gives, with its group and version.
    pub kind: GroupVersionKind,
    /// The verbs it has.
    pub verbs: Vec<String>,
    /// For a custom resource's scale: where the numbers stand.
    pub scale: Option<ScalePaths>,
}

/// JSON paths (with a leading dot) of a custom resource's scale.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
    pub custom: bool,
}

/// One version.
#[derive(Clone)]
pub(crate) struct Version {
    /// Its name.
    pub name: String,
    /// Whether requests may use it.
    pub served: bool,
    /// Whether objects are stored in it (exactly one version of the stored rows is).
    pub storage: bool,
    /// Its schema.
    pub schema: Schema,
    /// The columns of its table form.
    pub columns: Vec<Column>,
    /// Its subresources.
    pub subresources: Vec<Subresource>,
    /// How an object gets to and from the storage version; `None`: only the apiVersion differs.
    pub convert: Option<&'static dyn Convert>,
    /// `Warning` for those who use it.
    pub deprecation: Option<String>,
}

/// A conversion between a version and the one that is stored.
pub(crate) trait Convert: Send + Sync {
    /// From the version to the stored one.
    fn to_storage(&self, document: &mut Document);
    /// From the stored one.
    fn unstore(&self, document: &mut Document);
    /// What the stored one calls a selectable field; `None`: the same.
    fn stored_field(&self, _field: &str) -> Option<String> {
        None
    }
}

/// Where objects of a row are kept. Two rows may share one storage (events in two groups).
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    /// The prefix of all keys, with a slash at the end.
    pub prefix: String,
    /// The `apiVersion` of stored values.
    pub api_version: String,
}

/// A kind's own rules, built-in or made at run time.
#[derive(Clone)]
pub(crate) enum Strategy {
    /// Of the table in `api`.
    BuiltIn(&'static dyn Rules),
    /// Of a CustomResourceDefinition.
    Made(Arc<Custom>),
}

impl Strategy {
    /// What is stored as readers get it, where that differs: custom objects are completed by the schema of today.
    pub(crate) fn read(&self, stored: &[u8]) -> Option<Document> {
        match self {
            Self::BuiltIn(rules) => crate::stored::read(stored, *rules),
            Self::Made(custom) => custom.read(stored),
        }
    }

    /// Whether objects are stored in that apiVersion by now.
    pub(crate) fn stores(&self, api_version: &str) -> bool {
        match self {
            Self::BuiltIn(_) => true,
            Self::Made(custom) => custom.stores(api_version),
        }
    }

    /// The fields that a selector may name in a version, besides those that all kinds have.
    pub(crate) fn selectable_in(&self, version: &str) -> Vec<Cow<'static, str>> {
        match self {
            Self::BuiltIn(rules) => rules.fields(&Document::default()).into_iter().map(|(name, _)| name).collect(),
            Self::Made(custom) => custom.selectable_in(version).into_iter().map(Cow::Owned).collect(),
        }
    }
}

impl Deref for Strategy {
    type Target = dyn Rules;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::BuiltIn(rules) => *rules,
            Self::Made(custom) => custom.as_ref(),
        }
    }
}

impl Resource {
    /// Group and plural, as errors name it.
    pub(crate) fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.plural)
    }

    /// Group and kind, as errors name it: those of the stored form.
    pub(crate) fn group_kind(&self) -> GroupKind {
        let stored = self.storage.as_ref().and_then(|storage| GroupVersion::parse(&storage.api_version));
        let group = stored.map_or_else(|| self.group.clone(), |version| version.group);
        GroupKind { group, kind: self.kind.clone() }
    }

    /// Group and version of one of its versions.
    pub(crate) fn group_version(&self, version: &Version) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: version.name.clone() }
    }

    /// Group, version and kind of one of its versions.
    pub(crate) fn kind_in(&self, version: &Version) -> GroupVersionKind {
        self.group_version(version).kind(&self.kind)
    }

    /// The schema of the form that rules check, for a request in a version.
    pub(crate) fn checked_schema<'a>(&'a self, version: &'a Version) -> &'a Schema {
        let stored = self.storage_version().filter(|_| !self.custom);
        &stored.unwrap_or(version).schema
    }

    /// Whether objects stand in a namespace.
    pub(crate) fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// A served version.
    pub(crate) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.served && v.name == name)
    }

    /// Whether the resource itself has a verb.
    pub(crate) fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The store's key of one object.
    pub(crate) fn key(&self, object: &ObjectName) -> Option<String> {
        let prefix = &self.storage.as_ref()?.prefix;
        Some(match (self.scope, object.namespace.as_str()) {
            (Scope::Namespaced, namespace) if !namespace.is_empty() => format!("{prefix}{namespace}/{}", object.name),
            _ => format!("{prefix}{}", object.name),
        })
    }

    /// The prefix of the keys of one namespace, or of all.
    pub(crate) fn key_prefix(&self, namespace: &str) -> Option<String> {
        let prefix = &self.storage.as_ref()?.prefix;
        Some(match (self.scope, namespace) {
            (Scope::Cluster, _) | (_, "") => prefix.clone(),
            (Scope::Namespaced, namespace) => format!("{prefix}{namespace}/"),
        })
    }

    /// The version that objects are stored in.
    pub(crate) fn storage_version(&self) -> Option<&Version> {
        self.versions.iter().find(|v| v.storage)
    }

    /// Turns an object of `version` into the form that rules and admission work on (upstream's hub): of a built-in kind
    /// that is the stored one, of a custom one the version that the request names.
    pub(crate) fn to_hub(&self, version: &Version, document: &mut Document) {
        if self.custom {
            return;
        }
        if let Some(convert) = version.convert {
            convert.to_storage(document);
        }
        if let Some(storage) = self.storage.as_ref().filter(|storage| storage.api_version != document.api_version()) {
            document.set("/apiVersion", storage.api_version.as_str());
        }
    }

    /// Turns a built-in object from that form into `version`.
    pub(crate) fn out_of_hub(&self, version: &Version, document: &mut Document) {
        if self.custom {
            return;
        }
        if let Some(convert) = version.convert {
            convert.unstore(document);
        }
        if !version.is_of(&self.group, document.api_version()) {
            document.set("/apiVersion", self.group_version(version).to_string());
        }
    }

    /// Whether another row was made from the same definition as it is now, its end apart: what this one shows is true.
    pub(crate) fn is_made_as(&self, other: &Self) -> bool {
        match (&self.strategy, &other.strategy) {
            (Strategy::Made(one), Strategy::Made(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    /// Whether `version` shows the bytes of an object of that apiVersion as they are.
    pub(crate) fn shows(&self, version: &Version, api_version: &str) -> bool {
        version.convert.is_none() && version.is_of(&self.group, api_version)
    }
}

impl Version {
    /// A subresource.
    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether an apiVersion is this one of the group.
    fn is_of(&self, group: &str, api_version: &str) -> bool {
        match group {
            "" => api_version == self.name,
            group => api_version.strip_prefix(group).and_then(|rest| rest.strip_prefix('/')) == Some(&self.name),
        }
    }
}

impl Subresource {
    /// Whether it has a verb.
    pub(crate) fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}
