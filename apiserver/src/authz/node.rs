//! What a node may see and change: what its pods need (`plugin/pkg/auth/authorizer/node`).
//!
//! Upstream keeps a graph from pods to nodes; here the node's own pods of the namespace are looked through when it asks,
//! which the cache finds by an index that is never older than the pods themselves.

use api::{Document, GroupResource, ObjectName};
use serde_json::Value;

use super::rule::Rule;
use super::{Authorizer, Decision};
use crate::attributes::{Attributes, ResourceAttributes, User};
use crate::bootstrap;
use crate::view::View;

const LEASES: &str = "kube-node-lease";

/// The authorizer.
pub(super) struct NodeAuthorizer;

/// The node a user is: `system:node:<name>` in the group `system:nodes`. An empty name where the name is missing.
pub(crate) fn node_name(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.is_in("system:nodes").then_some(name)
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes, view: &dyn View) -> Decision {
        let Some(node) = node_name(&attributes.user) else { return Decision::pass() };
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", attributes.user.name));
        }
        let asked = attributes.resource.as_ref().map(|target| Asked { node, target, verb: &attributes.verb, view });
        asked.and_then(|asked| asked.decide()).unwrap_or_else(|| by_rules(attributes))
    }
}

/// Resources that are not subdivided: the rules of the role `system:node`.
fn by_rules(attributes: &Attributes) -> Decision {
    match bootstrap::node_rules().iter().any(|rule: &Rule| rule.allows(attributes)) {
        true => yes(),
        false => Decision::pass(),
    }
}

fn yes() -> Decision {
    Decision::Allow { reason: String::new() }
}

/// With the authorizer's name before it, as upstream joins the reasons of several.
fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion { reason: format!("node: {}", reason.into()) }
}

struct Asked<'a> {
    node: &'a str,
    target: &'a ResourceAttributes,
    verb: &'a str,
    view: &'a dyn View,
}

/// How a pod uses an object of a kind.
type Uses = fn(&Document, &str) -> bool;

impl Asked<'_> {
    /// `None` for resources that are not subdivided.
    fn decide(&self) -> Option<Decision> {
        let sub = self.target.subresource.as_str();
        Some(match (self.target.group_version.group.as_str(), self.target.resource.as_str()) {
            ("", "secrets") => self.read(uses_secret),
            ("", "configmaps") => self.read(uses_config_map),
            ("", "persistentvolumeclaims") if sub == "status" => self.claim_status(),
            ("", "persistentvolumeclaims") => self.get(|asked| asked.used_by_pods(uses_claim)),
            ("", "persistentvolumes") => self.get(Asked::volume_of_pods),
            ("resource.k8s.io", "resourceclaims") => self.get(|asked| asked.used_by_pods(uses_resource_claim)),
            ("storage.k8s.io", "volumeattachments") => self.get(Asked::own_attachment),
            ("", "serviceaccounts") => self.account(),
            ("coordination.k8s.io", "leases") => self.lease(),
            ("storage.k8s.io", "csinodes") => self.csi_node(),
            ("resource.k8s.io", "resourceslices") => self.slice(),
            ("", "nodes") => self.own_node(),
            ("", "pods") => self.pod(),
            ("certificates.k8s.io", "podcertificaterequests") => self.pod_certificate(),
            _ => return None,
        })
    }

    fn related(&self, found: bool) -> Decision {
        match found {
            true => yes(),
            false => no(format!("no relationship found between node '{}' and this object", self.node)),
        }
    }

    fn known(&self, relation: impl Fn(&Self) -> bool) -> Decision {
        match self.target.object.name.as_str() {
            "" => no("No Object name found"),
            _ => self.related(relation(self)),
        }
    }

    /// Secrets and configmaps: single ones that a pod of the node uses.
    fn read(&self, uses: Uses) -> Decision {
        match (self.verb, self.target.subresource.as_str(), self.target.object.namespace.as_str()) {
            ("get" | "list" | "watch", "", "") => no("can only read namespaced object of this type"),
            ("get" | "list" | "watch", "", _) => self.known(|asked| asked.used_by_pods(uses)),
            ("get" | "list" | "watch", _, _) => no("cannot read subresource"),
            _ => no("can only read resources of this type"),
        }
    }

    fn get(&self, relation: impl Fn(&Self) -> bool) -> Decision {
        match (self.verb, self.target.subresource.as_str()) {
            ("get", "") => self.known(relation),
            ("get", _) => no("cannot get subresource"),
            _ => no("can only get individual resources of this type"),
        }
    }

    fn claim_status(&self) -> Decision {
        match self.verb {
            "update" | "patch" => self.known(|asked| asked.used_by_pods(uses_claim)),
            _ => no("can only get/update/patch this type"),
        }
    }

    fn account(&self) -> Decision {
        let uses: Uses = |pod, name| pod.str_at("/spec/serviceAccountName") == name;
        match (self.verb, self.target.subresource.as_str(), self.target.object.name.as_str()) {
            ("get", "", _) => self.read(uses),
            ("create", _, "") => no("can only create tokens for individual service accounts"),
            ("create", "token", _) => self.related(self.used_by_pods(uses)),
            ("create", _, _) => no("can only create token subresource of serviceaccount"),
            _ => no("can only create tokens for individual service accounts"),
        }
    }

    fn lease(&self) -> Decision {
        let object = &self.target.object;
        match self.verb {
            "get" | "create" | "update" | "patch" | "delete" => {}
            _ => return no("can only get, create, update, patch, or delete a node lease"),
        }
        if object.namespace != LEASES {
            return no(format!("can only access leases in the {LEASES:?} system namespace"));
        }
        match self.verb == "create" || object.name == self.node {
            true => yes(),
            false => no("can only access node lease with the same name as the requesting node"),
        }
    }

    fn csi_node(&self) -> Decision {
        match (self.target.subresource.as_str(), self.verb) {
            ("", "get" | "create" | "update" | "patch" | "delete") => {}
            ("", _) => return no("can only get, create, update, patch, or delete a CSINode"),
            _ => return no("cannot authorize CSINode subresources"),
        }
        match self.verb == "create" || self.target.object.name == self.node {
            true => yes(),
            false => no("can only access CSINode with the same name as the requesting node"),
        }
    }

    fn slice(&self) -> Decision {
        match (self.target.subresource.as_str(), self.verb) {
            ("", "create") => yes(),
            ("", "get" | "update" | "patch" | "delete") => {
                self.known(|asked| asked.object().is_some_and(|slice| slice.str_at("/spec/nodeName") == asked.node))
            }
            ("", "watch" | "list" | "deletecollection") if self.selects("spec.nodeName") => yes(),
            ("", "watch" | "list" | "deletecollection") => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            ("", _) => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
            _ => no("cannot authorize ResourceSlice subresources"),
        }
    }

    fn pod_certificate(&self) -> Decision {
        let own = |asked: &Self| asked.object().is_some_and(|request| request.str_at("/spec/nodeName") == asked.node);
        match (self.target.subresource.as_str(), self.verb) {
            ("", "create") => yes(),
            ("", "get") => self.known(own),
            ("", "list" | "watch") if self.selects("spec.nodeName") => yes(),
            ("", "list" | "watch") => no("can only list/watch podcertificaterequests with nodeName field selector"),
            ("", verb) => no(format!("nodes may not {verb} podcertificaterequests")),
            _ => no("nodes may not access the status subresource of PodCertificateRequests"),
        }
    }

    fn own_node(&self) -> Decision {
        match (self.target.subresource.as_str(), self.verb, self.target.object.name.as_str()) {
            // Which node is changed NodeRestriction checks, since a create does not say its name here.
            ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => yes(),
            ("", "get" | "list" | "watch", name) if name == self.node => yes(),
            ("", "get" | "list" | "watch", "") => {
                no(format!("node '{}' cannot read all nodes, only its own Node object", self.node))
            }
            ("", "get" | "list" | "watch", name) => {
                no(format!("node '{}' cannot read '{name}', only its own Node object", self.node))
            }
            _ => Decision::pass(),
        }
    }

    fn pod(&self) -> Decision {
        let bound = |asked: &Self| asked.object().is_some_and(|pod| pod.str_at("/spec/nodeName") == asked.node);
        match (self.target.subresource.as_str(), self.verb) {
            ("", "get") => self.known(bound),
            ("", "list" | "watch") if self.selects("spec.nodeName") => yes(),
            ("", "list" | "watch") if !self.target.object.name.is_empty() => self.known(bound),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => yes(),
            _ => Decision::pass(),
        }
    }

    fn selects(&self, field: &str) -> bool {
        self.target.fields.iter().any(|(key, value)| key == field && value == self.node)
    }

    fn object(&self) -> Option<Document> {
        self.view.get(&self.target.group_resource(), &self.target.object)
    }

    fn pods(&self, namespace: Option<&str>) -> impl Iterator<Item = Document> {
        self.view.list_by(&GroupResource::new("", "pods"), namespace, "spec.nodeName", self.node).into_iter()
    }

    fn used_by_pods(&self, uses: Uses) -> bool {
        let ObjectName { namespace, name } = &self.target.object;
        self.pods(Some(namespace)).any(|pod| uses(&pod, name))
    }

    /// A volume whose claim a pod of the node uses.
    fn volume_of_pods(&self) -> bool {
        let Some(volume) = self.object() else { return false };
        let claim = volume.str_at("/spec/claimRef/name");
        self.pods(Some(volume.str_at("/spec/claimRef/namespace"))).any(|pod| uses_claim(&pod, claim))
    }

    fn own_attachment(&self) -> bool {
        self.object().is_some_and(|attachment| attachment.str_at("/spec/nodeName") == self.node)
    }
}

fn uses_secret(pod: &Document, name: &str) -> bool {
    let pulled = pod.list_at("/spec/imagePullSecrets").iter().any(|s| s.get("name").is_some_and(|n| n == name));
    pulled || names(pod.at("/spec").unwrap_or(&Value::Null), SECRETS, name)
}

fn uses_config_map(pod: &Document, name: &str) -> bool {
    names(pod.at("/spec").unwrap_or(&Value::Null), CONFIG_MAPS, name)
}

fn uses_claim(pod: &Document, name: &str) -> bool {
    pod.list_at("/spec/volumes").iter().any(|volume| {
        let own = volume.get("name").and_then(Value::as_str).unwrap_or_default();
        let claim = volume.pointer("/persistentVolumeClaim/claimName").is_some_and(|n| n == name);
        claim || (volume.get("ephemeral").is_some() && format!("{}-{own}", pod.name()) == name)
    })
}

fn uses_resource_claim(pod: &Document, name: &str) -> bool {
    let said =
        pod.list_at("/spec/resourceClaims").iter().any(|c| c.get("resourceClaimName").is_some_and(|n| n == name));
    let made = pod.list_at("/status/resourceClaimStatuses").iter();
    said || made.into_iter().any(|c| c.get("resourceClaimName").is_some_and(|n| n == name))
}

/// Below which keys a pod's spec names a secret, and by which key.
const SECRETS: &[(&str, &str)] = &[
    ("secretRef", "name"),
    ("secretKeyRef", "name"),
    ("secret", "secretName"),
    ("secret", "name"),
    ("controllerPublishSecretRef", "name"),
    ("nodeStageSecretRef", "name"),
    ("nodePublishSecretRef", "name"),
    ("nodeExpandSecretRef", "name"),
    ("azureFile", "secretName"),
];
const CONFIG_MAPS: &[(&str, &str)] = &[("configMapRef", "name"), ("configMapKeyRef", "name"), ("configMap", "name")];

/// Whether a reference to `name` stands anywhere in the tree.
fn names(tree: &Value, keys: &[(&str, &str)], name: &str) -> bool {
    match tree {
        Value::Object(map) => map.iter().any(|(key, value)| {
            let here = keys.iter().any(|(k, n)| k == key && value.get(*n).is_some_and(|v| v == name));
            here || names(value, keys, name)
        }),
        Value::Array(items) => items.iter().any(|item| names(item, keys, name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{uses_config_map, uses_secret};
    use api::Document;
    use serde_json::json;

    #[test]
    fn references_are_found_wherever_a_pod_may_hold_them() {
        let pod = json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "secret", "env": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "from"}}]}],
            "volumes": [{"name": "a", "secret": {"secretName": "mounted"}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "projected"}}, {"secret": {"name": "part"}}]}}],
        }});
        let pod = Document::new(pod).unwrap();
        for name in ["pull", "env", "mounted", "part"] {
            assert!(uses_secret(&pod, name), "{name}");
        }
        assert!(uses_config_map(&pod, "from") && uses_config_map(&pod, "projected"));
        assert!(!uses_secret(&pod, "a") && !uses_secret(&pod, "from") && !uses_config_map(&pod, "env"));
    }
}
