//! `authorizer` in match conditions: the server's own authorizers, asked on behalf of the request's user.

use std::sync::Arc;

use api::cel::{self, Authorize, Check};
use api::{GroupVersion, ObjectName};

use crate::attributes::{Attributes, ResourceAttributes, User};
use crate::authz::{self, Authorizer};
use crate::view::View;

/// Who is asked, and for whom.
pub(crate) struct Authority<'a> {
    /// Who makes the request.
    pub user: &'a User,
    /// In order.
    pub authorizers: &'a [Arc<dyn Authorizer>],
    /// What they decide from.
    pub view: &'a dyn View,
}

impl Authorize for Authority<'_> {
    fn authorize(&self, check: &Check) -> cel::Decision {
        let user = check.service_account.as_ref().map_or_else(|| self.user.clone(), |(ns, name)| account(ns, name));
        let target = ResourceAttributes {
            group_version: GroupVersion { group: check.group.clone(), version: "*".into() },
            resource: check.resource.clone(),
            subresource: check.subresource.clone(),
            object: ObjectName { namespace: check.namespace.clone(), name: check.name.clone() },
            fields: Vec::new(),
        };
        let resource = check.path.is_empty().then_some(target);
        let attributes = Attributes { user, verb: check.verb.clone(), resource, path: check.path.clone() };
        let decision = authz::decide(self.authorizers, &attributes, self.view);
        let allowed = decision.allowed();
        let (authz::Decision::Allow { reason }
        | authz::Decision::Deny { reason }
        | authz::Decision::NoOpinion { reason }) = decision;
        cel::Decision { allowed, reason, error: String::new() }
    }
}

/// A service account, as its tokens make it.
fn account(namespace: &str, name: &str) -> User {
    let groups =
        ["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}"), "system:authenticated".into()];
    User { name: format!("system:serviceaccount:{namespace}:{name}"), groups: groups.into(), ..User::default() }
}
