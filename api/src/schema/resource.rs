//! What the table knows of each built-in resource.

use serde::Deserialize;

/// Whether objects stand in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// One built-in resource in one version.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// The group, empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
    /// The plural, as paths and RBAC name it.
    pub plural: String,
    /// The singular.
    pub singular: String,
    /// Where objects stand.
    pub scope: Scope,
    /// The verbs it has.
    pub verbs: Vec<String>,
    /// Short names.
    #[serde(default)]
    pub short: Vec<String>,
    /// Categories such as `all`.
    #[serde(default)]
    pub categories: Vec<String>,
    /// The OpenAPI name of its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Its subresources.
    #[serde(default)]
    pub subresources: Vec<Subresource>,
    /// The columns of its table form.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// The fields that a field selector may name.
    #[serde(default)]
    pub field_selectors: Vec<String>,
    /// The prefix of its keys in etcd, with a slash at the end; empty where nothing is stored.
    #[serde(default)]
    pub key: String,
}

/// One subresource.
#[derive(Clone, Debug, Deserialize)]
pub struct Subresource {
    /// `status`, `scale`, `exec`, ...
    pub name: String,
    /// The group of its kind where it differs from the resource's, else empty.
    pub group: String,
    /// The version of its kind where it differs, else empty.
    pub version: String,
    /// Its kind.
    pub kind: String,
    /// The verbs it has.
    pub verbs: Vec<String>,
}

/// One column of the table form.
#[derive(Clone, Debug, Deserialize)]
pub struct Column {
    /// The title.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// `name` for the object's name, else empty.
    #[serde(default)]
    pub format: String,
    /// Above 0: only shown with `-o wide`.
    #[serde(default)]
    pub priority: i32,
}
