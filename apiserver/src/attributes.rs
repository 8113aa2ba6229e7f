//! What a request wants, as authorization and admission see it.

use std::collections::BTreeMap;

use api::{GroupResource, GroupVersion, ObjectName};

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What is asked for: a resource, or a plain path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Who asks (after impersonation).
    pub user: User,
    /// `get list watch create update patch delete deletecollection` for resources, the lower-case method for paths.
    pub verb: String,
    /// The resource; `None` for a plain path.
    pub resource: Option<ResourceAttributes>,
    /// The request's path.
    pub path: String,
}

/// The resource a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ResourceAttributes {
    pub group_version: GroupVersion,
    /// The plural.
    pub resource: String,
    pub subresource: String,
    pub object: ObjectName,
    /// The `field=value` terms of a list's or watch's field selector: what a node may see depends on them.
    pub fields: Vec<(String, String)>,
}

impl ResourceAttributes {
    /// Group and plural.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group_version.group, &self.resource)
    }
}
