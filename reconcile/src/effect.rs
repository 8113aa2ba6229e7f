//! What a controller may ask for: a closed set of requests to the API server, and signing.

use api::{ObjectName, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::resource::{Kind, Resource, name_of};

/// One object at the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Target {
    pub resource: Resource,
    pub object: ObjectName,
}

impl Target {
    /// The target of a typed object.
    pub fn of<T: Kind>(object: &T) -> Self {
        Self { resource: Resource::of::<T>(), object: name_of(object.metadata()) }
    }
}

/// How a patch's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PatchKind {
    Merge,
    Strategic,
    Json,
}

/// What happens to dependents when an object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What must still be true of an object for it to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// An Event about an object.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Notice {
    pub about: ObjectReference,
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

/// Events to record when an effect has been performed. `{name}` in a message becomes the name in the answer,
/// `{error}` the server's message.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Told {
    pub done: Option<Notice>,
    pub failed: Option<Notice>,
}

/// A certificate to sign for a CertificateSigningRequest.
#[derive(Clone, Debug, PartialEq)]
pub struct Signing {
    /// The CertificateSigningRequest whose `status.certificate` is written.
    pub target: Target,
    /// Its resourceVersion: the request signed is the one that was approved.
    pub resource_version: String,
    /// `spec.signerName`.
    pub signer: String,
    /// The PKCS#10 request, PEM.
    pub request_pem: Vec<u8>,
    /// Key usages, as `spec.usages` names them.
    pub usages: Vec<String>,
    /// How long the certificate shall be valid, if the requester said so.
    pub expiration_seconds: Option<i32>,
    /// The time of the decision.
    pub now: Timestamp,
}

/// A request to the API server.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Effect {
    /// Consecutive creations of one resource are sent in batches of 1, 2, 4 ... and stop at the first batch with a
    /// failure, so that a quota or a webhook that refuses all is not asked hundreds of times.
    Create {
        resource: Resource,
        namespace: String,
        object: Value,
        told: Told,
    },
    Update {
        target: Target,
        subresource: &'static str,
        object: Value,
        told: Told,
    },
    Patch {
        target: Target,
        subresource: &'static str,
        kind: PatchKind,
        body: Value,
        told: Told,
    },
    Delete {
        target: Target,
        preconditions: Preconditions,
        propagation: Option<Propagation>,
        grace_seconds: Option<i64>,
        told: Told,
    },
    DeleteCollection {
        resource: Resource,
        namespace: String,
    },
    /// A creation below an object: `pods/binding`, `pods/eviction`.
    Post {
        target: Target,
        subresource: &'static str,
        object: Value,
        told: Told,
    },
    Sign(Box<Signing>),
    Event(Notice),
}

impl Effect {
    /// A creation.
    pub fn create<T: Kind>(namespace: &str, object: Value) -> Self {
        Self::Create { resource: Resource::of::<T>(), namespace: namespace.into(), object, told: Told::default() }
    }

    /// A merge patch of the object itself.
    pub fn patch<T: Kind>(object: &T, body: Value) -> Self {
        Self::Patch { target: Target::of(object), subresource: "", kind: PatchKind::Merge, body, told: Told::default() }
    }

    /// A merge patch of `status`.
    pub fn patch_status<T: Kind>(object: &T, body: Value) -> Self {
        let (target, kind) = (Target::of(object), PatchKind::Merge);
        Self::Patch { target, subresource: "status", kind, body, told: Told::default() }
    }

    /// A deletion of this very object (its uid is a precondition), dependents in the background.
    pub fn delete<T: Kind>(object: &T) -> Self {
        let preconditions = Preconditions { uid: object.metadata().uid.clone(), resource_version: None };
        let target = Target::of(object);
        Self::Delete {
            target,
            preconditions,
            propagation: Some(Propagation::Background),
            grace_seconds: None,
            told: Told::default(),
        }
    }

    /// A strategic merge patch of the object or a subresource.
    pub fn strategic<T: Kind>(object: &T, subresource: &'static str, body: Value) -> Self {
        let (target, kind) = (Target::of(object), PatchKind::Strategic);
        Self::Patch { target, subresource, kind, body, told: Told::default() }
    }

    /// The same effect, with Events to record.
    pub fn telling(mut self, new: Told) -> Self {
        match &mut self {
            Self::Create { told, .. }
            | Self::Update { told, .. }
            | Self::Patch { told, .. }
            | Self::Delete { told, .. }
            | Self::Post { told, .. } => *told = new,
            Self::DeleteCollection { .. } | Self::Sign(_) | Self::Event(_) => {}
        }
        self
    }

    /// An Event of type Normal.
    pub fn normal(about: ObjectReference, reason: &str, message: impl Into<String>) -> Self {
        Self::Event(Notice { about, warning: false, reason: reason.into(), message: message.into() })
    }

    /// An Event of type Warning.
    pub fn warning(about: ObjectReference, reason: &str, message: impl Into<String>) -> Self {
        Self::Event(Notice { about, warning: true, reason: reason.into(), message: message.into() })
    }
}

/// A reference to an object, as Events and bindings carry it.
pub fn reference<T: Kind>(object: &T) -> ObjectReference {
    reference_to(&Resource::of::<T>(), object.metadata())
}

/// The same for an object whose type is not known.
pub fn reference_to(resource: &Resource, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(resource.api_version()),
        kind: Some(resource.kind.to_string()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}
