//! Admission: one file a plugin, and the list of them in the order they run.
//!
//! Mutating plugins run first, each followed by defaulting and pruning; validating ones see the final object. Both are
//! pure. Webhooks are a part of the write machine itself (`write/webhooks.rs`), since they must ask outside.

mod certificates;
mod claim_resize;
mod default_classes;
mod default_toleration_seconds;
mod escalation;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod priority;
mod runtime_class;
mod service_account;
mod storage_protection;
mod taint_nodes;
#[cfg(test)]
mod tests;

use api::{Document, GroupResource, GroupVersionKind, ObjectName, Status, StatusResult, Timestamp};

use crate::attributes::Attributes;
use crate::view::View;

/// The request that is being admitted.
pub struct Context<'a> {
    /// Who wants what.
    pub attributes: &'a Attributes,
    /// The kind of the object in the request.
    pub kind: &'a GroupVersionKind,
    /// The stored object, on update and delete.
    pub old: Option<&'a Document>,
    /// Other objects.
    pub view: &'a dyn View,
    /// The request's time.
    pub now: Timestamp,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// One admission plugin. `object` is the new object; on delete and connect it is the options or empty.
pub trait Plugin: Send + Sync {
    /// Its name, as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// Changes the object.
    fn mutate(&self, _object: &mut Document, _context: &Context<'_>) -> StatusResult<()> {
        Ok(())
    }

    /// Refuses the request.
    fn validate(&self, _object: &Document, _context: &Context<'_>) -> StatusResult<()> {
        Ok(())
    }

    /// What else there is to say about the request; asked before it is validated.
    fn remarks(&self, _object: &Document, _context: &Context<'_>) -> Remarks {
        Remarks::default()
    }
}

/// What a plugin has to say besides yes and no.
#[derive(Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Remarks {
    /// `Warning` texts for an answer that is no refusal.
    pub warnings: Vec<String>,
    /// For audit, whatever the answer.
    pub annotations: Vec<(String, String)>,
}

/// Every plugin, in upstream's order (`pkg/kubeapiserver/options/plugins.go`). To add one: a file and a line. Quota runs
/// last of all, in the write machine, since it charges in the same transaction.
pub const PLUGINS: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &taint_nodes::TaintNodesByCondition,
    &pod_security::PodSecurity,
    &priority::Priority,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &default_classes::DefaultStorageClass,
    &storage_protection::StorageObjectInUseProtection,
    &claim_resize::PersistentVolumeClaimResize,
    &runtime_class::RuntimeClass,
    &certificates::CertificateApproval,
    &certificates::CertificateSigning,
    &certificates::CertificateSubjectRestriction,
    &default_classes::DefaultIngressClass,
    &escalation::RoleEscalation,
];

impl Context<'_> {
    /// `create`, `update`, `delete` or `connect`.
    fn verb(&self) -> &str {
        &self.attributes.verb
    }

    fn resource(&self) -> GroupResource {
        self.attributes.resource.as_ref().map_or_else(|| GroupResource::new("", ""), |target| target.group_resource())
    }

    fn subresource(&self) -> &str {
        self.attributes.resource.as_ref().map_or("", |target| target.subresource.as_str())
    }

    fn namespace(&self) -> &str {
        self.attributes.resource.as_ref().map_or("", |target| target.object.namespace.as_str())
    }

    fn name(&self) -> &str {
        self.attributes.resource.as_ref().map_or("", |target| target.object.name.as_str())
    }

    /// Whether it is this resource itself (no subresource).
    fn is(&self, group: &str, resource: &str) -> bool {
        self.targets(group, resource, "")
    }

    fn targets(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.attributes.resource.as_ref().is_some_and(|target| {
            target.group_version.group == group && target.resource == resource && target.subresource == subresource
        })
    }

    /// 403, about the object as far as its name is known.
    fn forbidden(&self, object: &Document, why: impl AsRef<str>) -> Box<Status> {
        let names = [self.name(), object.name(), object.str_at("/metadata/generateName")];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or("Unknown");
        Status::forbidden(&self.resource(), name, why.as_ref())
    }

    fn look_up(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Document> {
        let object = ObjectName { namespace: namespace.into(), name: name.into() };
        self.view.get(&GroupResource::new(group, resource), &object)
    }
}

/// The containers of a pod, by the list they stand in.
const CONTAINERS: [&str; 2] = ["/spec/initContainers", "/spec/containers"];

/// Whether a pod is the kubelet's image of a static one.
fn is_mirror(pod: &Document) -> bool {
    pod.annotation("kubernetes.io/config.mirror").is_some()
}

/// Adds to the list at a pointer, making it where there is none.
fn push(object: &mut Document, pointer: &str, item: serde_json::Value) {
    let mut list = object.list_at(pointer).to_vec();
    list.push(item);
    object.set(pointer, list);
}
