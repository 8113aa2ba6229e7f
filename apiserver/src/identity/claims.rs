//! What a service account token says, and whether it still holds (`k8s.io/kubernetes/pkg/serviceaccount/claims.go`).

use std::collections::BTreeMap;

use api::{Document, GroupResource, ObjectName, Timestamp, time};
use serde::{Deserialize, Serialize};

use crate::attributes::User;
use crate::view::View;

/// Clocks may differ by this, and an object that is being deleted counts for this long.
const LEEWAY_S: i64 = 60;

/// All claims.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) aud: Vec<String>,
    pub(super) exp: i64,
    pub(super) iat: i64,
    pub(super) nbf: i64,
    #[serde(default)]
    pub(super) jti: String,
    pub(super) sub: String,
    #[serde(rename = "kubernetes.io")]
    pub(super) kubernetes: Private,
}

/// The claims that are Kubernetes' own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Private {
    pub(super) namespace: String,
    pub(super) serviceaccount: Ref,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) warnafter: Option<i64>,
}

/// An object by name and uid.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ref {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
}

impl Ref {
    pub(super) fn of(object: &Document) -> Self {
        Self { name: object.name().into(), uid: object.uid().into() }
    }

    /// Whether the object is still there: same uid, and not deleted for longer than the leeway.
    fn stands(&self, resource: &str, namespace: &str, view: &dyn View, now: Timestamp) -> bool {
        let name = ObjectName { namespace: namespace.into(), name: self.name.clone() };
        let Some(object) = view.get(&GroupResource::new("", resource), &name) else { return false };
        let deleted = time::parse(object.str_at("/metadata/deletionTimestamp"));
        let gone = deleted.is_some_and(|at| at.as_second() < now.as_second() - LEEWAY_S);
        object.uid() == self.uid && !gone
    }
}

impl Claims {
    /// Whether the token holds now, given its signature is good.
    pub(super) fn hold(&self, view: &dyn View, now: Timestamp) -> bool {
        let (at, own) = (now.as_second(), &self.kubernetes);
        let timely = at < self.exp + LEEWAY_S && at >= self.nbf - LEEWAY_S && at >= self.iat - LEEWAY_S;
        let subject = self.sub == format!("system:serviceaccount:{}:{}", own.namespace, own.serviceaccount.name);
        let namespaced = |found: &Option<Ref>, resource| match found {
            Some(found) => found.stands(resource, &own.namespace, view, now),
            None => true,
        };
        // With a pod the node is only told, not checked.
        let node = own.pod.is_some() || own.node.as_ref().is_none_or(|node| node.stands("nodes", "", view, now));
        timely
            && subject
            && own.serviceaccount.stands("serviceaccounts", &own.namespace, view, now)
            && namespaced(&own.secret, "secrets")
            && namespaced(&own.pod, "pods")
            && node
    }

    /// The user.
    pub(super) fn user(&self) -> User {
        let own = &self.kubernetes;
        let mut extra = BTreeMap::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if !self.jti.is_empty() {
            put("credential-id", &format!("JTI={}", self.jti));
        }
        for (kind, found) in [("pod", &own.pod), ("node", &own.node)] {
            if let Some(found) = found {
                put(&format!("{kind}-name"), &found.name);
                put(&format!("{kind}-uid"), &found.uid);
            }
        }
        User {
            name: self.sub.clone(),
            uid: own.serviceaccount.uid.clone(),
            groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{}", own.namespace)],
            extra,
        }
    }
}
