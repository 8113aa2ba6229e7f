//! How deciders name what they watch and change: resources, keys, and objects behind one trait.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;

use api::ObjectName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A resource of the API: enough to build a URL and an `apiVersion` and `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Resource {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub namespaced: bool,
}

/// Whether objects of a scope live in namespaces.
pub trait Scoped {
    /// True for namespaced resources.
    const NAMESPACED: bool;
}

impl Scoped for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl Scoped for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

/// A typed kind that can be watched.
pub trait Kind:
    k8s_openapi::Resource<Scope: Scoped> + Metadata<Ty = ObjectMeta> + DeserializeOwned + Any + Send + Sync
{
}

impl<T> Kind for T where
    T: k8s_openapi::Resource<Scope: Scoped> + Metadata<Ty = ObjectMeta> + DeserializeOwned + Any + Send + Sync
{
}

impl Resource {
    /// The resource of a typed kind.
    pub const fn of<T: Kind>() -> Self {
        Self {
            group: Cow::Borrowed(T::GROUP),
            version: Cow::Borrowed(T::VERSION),
            kind: Cow::Borrowed(T::KIND),
            plural: Cow::Borrowed(T::URL_PATH_SEGMENT),
            namespaced: <T::Scope as Scoped>::NAMESPACED,
        }
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        match self.group.as_ref() {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_ref() {
            "" => f.write_str(&self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

/// An object in a World, whatever its type.
pub trait Object: Any + Send + Sync {
    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// Its metadata, to trim it before it is kept.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// Itself, to be cast to its type.
    fn as_any(&self) -> &dyn Any;
}

impl<T: Metadata<Ty = ObjectMeta> + Any + Send + Sync> Object for T {
    fn metadata(&self) -> &ObjectMeta {
        Metadata::metadata(self)
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        Metadata::metadata_mut(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for dyn Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meta = self.metadata();
        write!(f, "{}@{}", name_of(meta), meta.resource_version.as_deref().unwrap_or_default())
    }
}

/// An object of which only the metadata is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Partial {
    #[serde(default)]
    pub metadata: ObjectMeta,
}

impl Object for Partial {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What a controller decides about: one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Key {
    pub resource: Resource,
    pub object: ObjectName,
}

impl Key {
    /// The key of a typed kind's object.
    pub fn of<T: Kind>(object: ObjectName) -> Self {
        Self { resource: Resource::of::<T>(), object }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource, self.object)
    }
}

/// Namespace and name out of metadata.
pub fn name_of(meta: &ObjectMeta) -> ObjectName {
    ObjectName { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
}

/// The resourceVersion as a number; 0 where there is none. Revisions of one server are ordered (KEP-5504).
pub fn revision_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}
