//! What the schema table cannot say: one file a kind, and the list of them.
//!
//! To add a kind's rules: one file with a type that implements [`Rules`], one line in [`RULES`].

mod admission_policy;
mod cell;
mod certificate_signing_request;
mod config_map;
mod cron_job;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod horizontal_pod_autoscaler;
mod job;
mod lease;
mod namespace;
mod node;
mod persistent_volume;
mod pod;
mod pod_disruption_budget;
mod pod_spec;
mod priority_class;
mod rbac;
mod replica_set;
mod rule;
mod secret;
mod service;
mod service_account;
mod stateful_set;
#[cfg(test)]
mod tests;
mod thin;
mod webhooks;
mod workload;

pub use custom_resource_definition::{Approval, ca_bundle_fault};
pub use pod::qos_class;
pub use pod_spec::host_namespaces;
pub(crate) use pod_spec::{OF_PODS, is_extended, is_huge_pages};

use std::borrow::Cow;

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
    /// The version that the request names.
    pub version: &'a str,
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

    /// The selectable field by whose value the API server finds objects without looking at all of them.
    fn index_field(&self) -> Option<&'static str> {
        None
    }

    /// The same, for kinds that are made at run time too.
    fn fields(&self, object: &Document) -> Vec<(Cow<'static, str>, String)> {
        self.selectable(object).into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()
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
    ("", "ComponentStatus", &thin::COMPONENT_STATUS),
    ("", "ConfigMap", &config_map::ConfigMap),
    ("", "Endpoints", &endpoints::Endpoints),
    ("", "Event", &event::Event { new_group: false }),
    ("", "LimitRange", &thin::LIMIT_RANGE),
    ("", "Namespace", &namespace::Namespace),
    ("", "Node", &node::Node),
    ("", "PersistentVolume", &persistent_volume::PersistentVolume),
    ("", "PersistentVolumeClaim", &persistent_volume::PersistentVolumeClaim),
    ("", "Pod", &pod::Pod),
    ("", "PodTemplate", &thin::POD_TEMPLATE),
    ("", "ReplicationController", &thin::REPLICATION_CONTROLLER),
    ("", "ResourceQuota", &thin::RESOURCE_QUOTA),
    ("", "Secret", &secret::Secret),
    ("", "Service", &service::Service),
    ("", "ServiceAccount", &service_account::ServiceAccount),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", &admission_policy::Policy { mutating: true }),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", &admission_policy::Binding { mutating: true }),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", &webhooks::Webhooks { mutating: true }),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", &admission_policy::Policy { mutating: false }),
    (
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding",
        &admission_policy::Binding { mutating: false },
    ),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", &webhooks::Webhooks { mutating: false }),
    ("apiextensions.k8s.io", "CustomResourceDefinition", &custom_resource_definition::CustomResourceDefinition),
    ("apiregistration.k8s.io", "APIService", &thin::API_SERVICE),
    ("apps", "ControllerRevision", &thin::CONTROLLER_REVISION),
    ("apps", "DaemonSet", &daemon_set::DaemonSet),
    ("apps", "Deployment", &deployment::Deployment),
    ("apps", "ReplicaSet", &replica_set::ReplicaSet),
    ("apps", "StatefulSet", &stateful_set::StatefulSet),
    ("autoscaling", "HorizontalPodAutoscaler", &horizontal_pod_autoscaler::HorizontalPodAutoscaler),
    ("batch", "CronJob", &cron_job::CronJob),
    ("batch", "Job", &job::Job),
    ("certificates.k8s.io", "CertificateSigningRequest", &certificate_signing_request::CertificateSigningRequest),
    ("certificates.k8s.io", "ClusterTrustBundle", &thin::CLUSTER_TRUST_BUNDLE),
    ("certificates.k8s.io", "PodCertificateRequest", &thin::POD_CERTIFICATE_REQUEST),
    ("coordination.k8s.io", "Lease", &lease::Lease),
    ("discovery.k8s.io", "EndpointSlice", &endpoint_slice::EndpointSlice),
    ("events.k8s.io", "Event", &event::Event { new_group: true }),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", &thin::FLOW_SCHEMA),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", &thin::PRIORITY_LEVEL),
    ("networking.k8s.io", "IPAddress", &thin::IP_ADDRESS),
    ("networking.k8s.io", "Ingress", &thin::INGRESS),
    ("networking.k8s.io", "IngressClass", &thin::INGRESS_CLASS),
    ("networking.k8s.io", "NetworkPolicy", &thin::NETWORK_POLICY),
    ("networking.k8s.io", "ServiceCIDR", &thin::SERVICE_CIDR),
    ("node.k8s.io", "RuntimeClass", &thin::RUNTIME_CLASS),
    ("policy", "PodDisruptionBudget", &pod_disruption_budget::PodDisruptionBudget),
    ("rbac.authorization.k8s.io", "ClusterRole", &rbac::Role { namespaced: false }),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", &rbac::Binding { namespaced: false }),
    ("rbac.authorization.k8s.io", "Role", &rbac::Role { namespaced: true }),
    ("rbac.authorization.k8s.io", "RoleBinding", &rbac::Binding { namespaced: true }),
    ("resource.k8s.io", "DeviceClass", &thin::DEVICE_CLASS),
    ("resource.k8s.io", "DeviceTaintRule", &thin::DEVICE_TAINT_RULE),
    ("resource.k8s.io", "ResourceClaim", &thin::RESOURCE_CLAIM),
    ("resource.k8s.io", "ResourceClaimTemplate", &thin::RESOURCE_CLAIM_TEMPLATE),
    ("resource.k8s.io", "ResourceSlice", &thin::RESOURCE_SLICE),
    ("scheduling.k8s.io", "PriorityClass", &priority_class::PriorityClass),
    ("storage.k8s.io", "CSIDriver", &thin::CSI_DRIVER),
    ("storage.k8s.io", "CSINode", &thin::CSI_NODE),
    ("storage.k8s.io", "CSIStorageCapacity", &thin::CSI_STORAGE_CAPACITY),
    ("storage.k8s.io", "StorageClass", &thin::STORAGE_CLASS),
    ("storage.k8s.io", "VolumeAttachment", &thin::VOLUME_ATTACHMENT),
    ("storage.k8s.io", "VolumeAttributesClass", &thin::VOLUME_ATTRIBUTES_CLASS),
    ("storagemigration.k8s.io", "StorageVersionMigration", &thin::STORAGE_VERSION_MIGRATION),
];

/// The rules of a built-in kind.
pub fn rules(group: &str, kind: &str) -> &'static dyn Rules {
    RULES.iter().find(|(g, k, _)| (*g, *k) == (group, kind)).map_or(&Plain, |(_, _, rules)| *rules)
}
