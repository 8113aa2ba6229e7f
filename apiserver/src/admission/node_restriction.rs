//! NodeRestriction: a node changes only itself, its lease, and the pods bound to it.

use api::{Document, Status, StatusResult};
use serde_json::Value;

use super::{Context, Plugin, is_mirror};
use crate::authz::node_name;

pub(super) struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn mutate(&self, object: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        check(object, context)
    }

    /// Deletes and creates of subresources only come by here.
    fn validate(&self, object: &Document, context: &Context<'_>) -> StatusResult<()> {
        check(object, context)
    }
}

fn check(object: &Document, context: &Context<'_>) -> StatusResult<()> {
    let Some(node) = node_name(&context.attributes.user) else { return Ok(()) };
    let request = Request { node, object, context };
    if node.is_empty() {
        return request.no(format!("could not determine node from user {:?}", context.attributes.user.name));
    }
    let resource = context.resource();
    match (resource.group.as_str(), resource.resource.as_str(), context.subresource()) {
        ("", "pods", "") => request.pod(),
        ("", "pods", "status") => request.pod_status(),
        ("", "pods", "eviction") => request.eviction(),
        ("", "pods", sub) => {
            request.no(format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "nodes", _) => request.node(),
        ("", "persistentvolumeclaims", "status") => Ok(()),
        ("", "persistentvolumeclaims", _) => request.no("may only update PVC status"),
        ("", "serviceaccounts", "token") if context.verb() == "create" => request.token(),
        ("coordination.k8s.io", "leases", _) => request.lease(),
        ("storage.k8s.io", "csinodes", _) => {
            request.own_name("can only access CSINode with the same name as the requesting node")
        }
        ("certificates.k8s.io", "certificatesigningrequests", "") if context.verb() == "create" => request.csr(),
        _ => Ok(()),
    }
}

struct Request<'a> {
    node: &'a str,
    object: &'a Document,
    context: &'a Context<'a>,
}

impl Request<'_> {
    fn no(&self, why: impl AsRef<str>) -> StatusResult<()> {
        Err(self.context.forbidden(self.object, why))
    }

    fn unless(&self, fine: bool, why: impl FnOnce(&str) -> String) -> StatusResult<()> {
        if fine { Ok(()) } else { self.no(why(self.node)) }
    }

    fn pod(&self) -> StatusResult<()> {
        match self.context.verb() {
            "create" => self.mirror(),
            "delete" => {
                let bound = self.context.old.is_none_or(|pod| pod.str_at("/spec/nodeName") == self.node);
                self.unless(bound, |n| format!("node {n:?} can only delete pods with spec.nodeName set to itself"))
            }
            verb => {
                let verb = verb.to_uppercase();
                self.no(format!(
                    "unexpected operation {verb:?}, node {:?} can only create and delete mirror pods",
                    self.node
                ))
            }
        }
    }

    /// A node makes only the images of its static pods, owned by itself and using nothing of the API.
    fn mirror(&self) -> StatusResult<()> {
        let (pod, node) = (self.object, self.node);
        self.unless(is_mirror(pod), |n| {
            format!(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node {n:?} can only create mirror pods"
            )
        })?;
        let bound = pod.str_at("/spec/nodeName") == node;
        self.unless(bound, |n| format!("node {n:?} can only create pods with spec.nodeName set to itself"))?;
        let owner = match pod.list_at("/metadata/ownerReferences") {
            [owner] => owner,
            [] => return self.no(format!("node {node:?} can only create pods with an owner reference set to itself")),
            _ => {
                let why = format!("node {node:?} can only create pods with a single owner reference set to itself");
                return self.no(why);
            }
        };
        self.owned(owner)?;
        let spec = pod.at("/spec").map(Value::to_string).unwrap_or_default();
        let kinds = [
            ("\"serviceAccountName\":", "serviceaccounts"),
            ("\"secretName\":", "secrets"),
            ("\"secretKeyRef\":", "secrets"),
            ("\"secretRef\":", "secrets"),
            ("\"configMap\":", "configmaps"),
            ("\"configMapKeyRef\":", "configmaps"),
            ("\"configMapRef\":", "configmaps"),
            ("\"persistentVolumeClaim\":", "persistentvolumeclaims"),
            ("\"resourceClaims\":", "resourceclaims"),
        ];
        match kinds.iter().find(|(key, _)| spec.contains(key)) {
            Some((_, kind)) => self.no(format!("node {node:?} can not create pods that reference {kind}")),
            None => Ok(()),
        }
    }

    fn owned(&self, owner: &Value) -> StatusResult<()> {
        let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
        let flag = |key: &str| owner.get(key).and_then(Value::as_bool).unwrap_or_default();
        let own = (text("apiVersion"), text("kind"), text("name")) == ("v1", "Node", self.node);
        self.unless(own, |n| format!("node {n:?} can only create pods with an owner reference set to itself"))?;
        self.unless(flag("controller"), |n| {
            format!("node {n:?} can only create pods with a controller owner reference set to itself")
        })?;
        self.unless(!flag("blockOwnerDeletion"), |n| {
            format!("node {n:?} must not set blockOwnerDeletion on an owner reference")
        })?;
        let Some(node) = self.context.look_up("", "nodes", "", self.node) else {
            return Err(Status::not_found(&api::GroupResource::new("", "nodes"), self.node));
        };
        let (said, is) = (text("uid"), node.uid());
        self.unless(said == is, |n| format!("node {n} UID mismatch: expected {said} got {is}"))
    }

    fn pod_status(&self) -> StatusResult<()> {
        let (Some(old), "update") = (self.context.old, self.context.verb()) else {
            return self.no(format!("unexpected operation {:?}", self.context.verb().to_uppercase()));
        };
        let bound = old.str_at("/spec/nodeName") == self.node;
        self.unless(bound, |n| {
            format!("node {n:?} can only update pod status for pods with spec.nodeName set to itself")
        })?;
        self.unless(old.labels().eq(self.object.labels()), |n| {
            format!("node {n:?} cannot update labels through pod status")
        })?;
        let claims = "/status/resourceClaimStatuses";
        let same = api::validation::same(old.at(claims), self.object.at(claims));
        self.unless(same, |n| format!("node {n:?} cannot update resource claim statues"))
    }

    fn eviction(&self) -> StatusResult<()> {
        let pod = self.context.look_up("", "pods", self.context.namespace(), self.context.name());
        let bound = pod.is_none_or(|pod| pod.str_at("/spec/nodeName") == self.node);
        self.unless(bound, |n| format!("node {n} can only evict pods with spec.nodeName set to itself"))
    }

    fn node(&self) -> StatusResult<()> {
        let (object, name) = (self.object, self.context.name());
        let name = if name.is_empty() { object.name() } else { name };
        self.unless(name == self.node, |n| format!("node {n:?} is not allowed to modify node {name:?}"))?;
        match (self.context.verb(), self.context.old) {
            ("create", _) => {
                let bad = forbidden_labels(object, None);
                self.unless(bad.is_empty(), |n| {
                    format!("node {n:?} is not allowed to set the following labels: {}", bad.join(", "))
                })
            }
            ("update", Some(old)) => self.node_update(old),
            _ => Ok(()),
        }
    }

    fn node_update(&self, old: &Document) -> StatusResult<()> {
        let kept = |pointer: &str| api::validation::same(old.at(pointer), self.object.at(pointer));
        self.unless(kept("/spec/taints"), |n| format!("node {n:?} is not allowed to modify taints"))?;
        self.unless(kept("/metadata/ownerReferences"), |n| {
            format!("node {n:?} is not allowed to modify ownerReferences")
        })?;
        let bad = forbidden_labels(self.object, Some(old));
        self.unless(bad.is_empty(), |_| format!("is not allowed to modify labels: {}", bad.join(", ")))
    }

    /// Only for its own pods, and only the audiences that these name.
    fn token(&self) -> StatusResult<()> {
        let text = |field: &str| self.object.str_at(&format!("/spec/boundObjectRef/{field}"));
        let to_pod = (text("apiVersion"), text("kind")) == ("v1", "Pod") && !text("name").is_empty();
        self.unless(to_pod, |_| "node requested token not bound to a pod".into())?;
        self.unless(!text("uid").is_empty(), |_| "node requested token with a pod binding without a uid".into())?;
        let Some(pod) = self.context.look_up("", "pods", self.context.namespace(), text("name")) else {
            return Err(Status::not_found(&api::GroupResource::new("", "pods"), text("name")));
        };
        let uid = text("uid");
        self.unless(uid == pod.uid(), |_| {
            format!("the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated")
        })?;
        let bound = pod.str_at("/spec/nodeName") == self.node;
        self.unless(bound, |_| "node requested token bound to a pod scheduled on a different node".into())?;
        let audience = match self.object.list_at("/spec/audiences") {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return self.no("node may only request 0 or 1 audiences"),
        };
        let user = &self.context.attributes.user.name;
        self.unless(names_audience(&pod, audience), |_| {
            format!("{user} is not authorized to request tokens for audience {audience:?}")
        })
    }

    fn lease(&self) -> StatusResult<()> {
        let own = self.context.namespace() == "kube-node-lease";
        self.unless(own, |_| "can only access leases in the \"kube-node-lease\" system namespace".into())?;
        self.own_name("can only access node lease with the same name as the requesting node")
    }

    fn own_name(&self, why: &str) -> StatusResult<()> {
        let name = if self.context.verb() == "create" { self.object.name() } else { self.context.name() };
        self.unless(name == self.node, |_| why.into())
    }

    /// A node asks for certificates only in its own name.
    fn csr(&self) -> StatusResult<()> {
        let signer = self.object.str_at("/spec/signerName");
        if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
            return Ok(());
        }
        let name = super::certificates::subject(self.object).map(|subject| subject.common_name);
        let wanted = format!("system:node:{}", self.node);
        match name {
            Err(why) => self.no(format!("unable to parse csr: {why}")),
            Ok(name) if name != wanted => self.no(format!("can only create a node CSR with CN={wanted}, not {name}")),
            Ok(_) => Ok(()),
        }
    }
}

/// Whether a projected token of the pod is for that audience.
fn names_audience(pod: &Document, audience: &str) -> bool {
    let sources = pod.list_at("/spec/volumes").iter().filter_map(|v| v.pointer("/projected/sources")?.as_array());
    let tokens = sources.flatten().filter_map(|source| source.get("serviceAccountToken"));
    tokens.into_iter().any(|t| t.get("audience").and_then(Value::as_str).unwrap_or_default() == audience)
}

/// Labels that kubelets may set on themselves.
const OWN: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// The labels that were set, changed or taken away although they are not the node's to decide.
fn forbidden_labels(new: &Document, old: Option<&Document>) -> Vec<String> {
    let get = |document: Option<&Document>, key: &str| -> Option<String> { document?.label(key).map(str::to_owned) };
    let keys = new.labels().chain(old.into_iter().flat_map(Document::labels)).map(|(key, _)| key.to_owned());
    let mut bad: Vec<String> = keys.filter(|key| get(Some(new), key) != get(old, key) && is_forbidden(key)).collect();
    bad.sort();
    bad.dedup();
    bad
}

fn is_forbidden(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let below = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|d| d.ends_with('.'));
    let own = OWN.contains(&key) || below("kubelet.kubernetes.io") || below("node.kubernetes.io");
    below("node-restriction.kubernetes.io") || ((below("kubernetes.io") || below("k8s.io")) && !own)
}
