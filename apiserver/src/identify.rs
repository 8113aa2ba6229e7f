//! Who asks: certificate, front proxy, token or nobody; then impersonation.

use std::collections::BTreeMap;

use api::{GroupVersion, ObjectName, Status, StatusResult};
use http::{HeaderMap, header};

use crate::attributes::{Attributes, ResourceAttributes, User};
use crate::authz::{self, Decision};
use crate::core::Core;
use crate::identity::front_proxy;
use crate::request::unescape;
use crate::respond::text;
use crate::serve::Peer;

/// The user of a request: of its certificate, else whom its front proxy names, else of its token, else the anonymous one.
pub(crate) fn authenticate(core: &Core, peer: &Peer, headers: &HeaderMap) -> StatusResult<User> {
    if let Some(user) = &peer.user {
        return Ok(authenticated(user.clone()));
    }
    if let Some(user) = peer.front_proxy.then(|| front_proxy::user(headers)).flatten() {
        return Ok(authenticated(user));
    }
    let Some(token) = bearer(headers) else { return Ok(anonymous()) };
    let user = core.parts.authenticator.token(token, core, core.now());
    user.map(authenticated).ok_or_else(Status::unauthorized)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = text(headers, header::AUTHORIZATION);
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn anonymous() -> User {
    User { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()], ..User::default() }
}

fn authenticated(mut user: User) -> User {
    let group = "system:authenticated";
    if user.name != "system:anonymous" && !user.is_in(group) {
        user.groups.push(group.into());
    }
    user
}

/// The user that the headers ask to act as, if the user may; `None` without such headers.
pub(crate) fn impersonate(core: &Core, user: &User, headers: &HeaderMap) -> StatusResult<Option<User>> {
    let name = text_of(headers, "impersonate-user");
    let groups: Vec<String> =
        headers.get_all("impersonate-group").iter().filter_map(|v| Some(v.to_str().ok()?.into())).collect();
    let uid = text_of(headers, "impersonate-uid");
    let extra = extra(headers, "impersonate-extra-");
    if name.is_empty() {
        return match groups.is_empty() && uid.is_empty() && extra.is_empty() {
            true => Ok(None),
            false => Err(nameless(&uid, &groups, &extra)),
        };
    }
    let mut wanted = User { name, uid, groups, extra };
    for (group, resource, subresource, object) in asked(&wanted) {
        may(core, user, group, resource, &subresource, object)?;
    }
    if wanted.groups.is_empty() {
        wanted.groups = implied_groups(&wanted.name);
    }
    let anonymous = wanted.name == "system:anonymous";
    let implied = if anonymous { "system:unauthenticated" } else { "system:authenticated" };
    if !wanted.is_in("system:authenticated") && !wanted.is_in("system:unauthenticated") {
        wanted.groups.push(implied.into());
    }
    Ok(Some(wanted))
}

/// 400 for an impersonation of nobody, which shows all else as Go prints it.
fn nameless(uid: &str, groups: &[String], extra: &BTreeMap<String, Vec<String>>) -> Box<Status> {
    let list = |values: &[String]| match values {
        [] => "[]string(nil)".to_owned(),
        some => format!("[]string{{{}}}", some.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ")),
    };
    let pairs: Vec<String> = extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
    let extra = match pairs.as_slice() {
        [] => "map[string][]string(nil)".to_owned(),
        some => format!("map[string][]string{{{}}}", some.join(", ")),
    };
    let user = format!("&user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{}, Extra:{extra}}}", list(groups));
    Status::bad_request(format!("requested {user} without impersonating a user name"))
}

type Asked = (&'static str, &'static str, String, ObjectName);

/// What the user must be allowed to `impersonate`.
fn asked(wanted: &User) -> Vec<Asked> {
    const GROUP: &str = "authentication.k8s.io";
    let named = |name: &str| ObjectName { namespace: String::new(), name: name.into() };
    let mut all: Vec<Asked> = vec![match service_account(&wanted.name) {
        Some((namespace, name)) => ("", "serviceaccounts", String::new(), ObjectName { namespace, name }),
        None => ("", "users", String::new(), named(&wanted.name)),
    }];
    all.extend(wanted.groups.iter().map(|group| ("", "groups", String::new(), named(group))));
    for (key, values) in &wanted.extra {
        all.extend(values.iter().map(|value| (GROUP, "userextras", key.clone(), named(value))));
    }
    if !wanted.uid.is_empty() {
        all.push((GROUP, "uids", String::new(), named(&wanted.uid)));
    }
    all
}

fn may(core: &Core, user: &User, group: &str, resource: &str, sub: &str, object: ObjectName) -> StatusResult<()> {
    let target = ResourceAttributes {
        group_version: GroupVersion { group: group.into(), version: "v1".into() },
        resource: resource.into(),
        subresource: sub.into(),
        object,
        fields: Vec::new(),
    };
    let attributes =
        Attributes { user: user.clone(), verb: "impersonate".into(), resource: Some(target), path: String::new() };
    authorize(core, &attributes)
}

fn service_account(name: &str) -> Option<(String, String)> {
    let (namespace, name) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Some((namespace.into(), name.into()))
}

fn implied_groups(name: &str) -> Vec<String> {
    match service_account(name) {
        Some((namespace, _)) => {
            vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
        }
        None if name.starts_with("system:node:") => vec!["system:nodes".into()],
        None => Vec::new(),
    }
}

/// The text of a header, empty where there is none.
pub(crate) fn text_of(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

/// What headers with a prefix say besides.
pub(crate) fn extra(headers: &HeaderMap, prefix: &str) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(prefix) else { continue };
        let key = unescape(key, false).unwrap_or_else(|| key.to_owned()).to_lowercase();
        extra.entry(key).or_default().extend(value.to_str().map(str::to_owned));
    }
    extra
}

/// Asks the authorizers; 403 where none allows it.
pub(crate) fn authorize(core: &Core, attributes: &Attributes) -> StatusResult<()> {
    match authz::decide(&core.parts.authorizers, attributes, core) {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(forbidden(attributes, &reason)),
    }
}

/// Upstream's words (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`).
fn forbidden(attributes: &Attributes, reason: &str) -> Box<Status> {
    let user = &attributes.user.name;
    let verb = &attributes.verb;
    let (mut why, resource, name) = match &attributes.resource {
        None => (format!("User {user:?} cannot {verb} path {:?}", attributes.path), None, ""),
        Some(target) => {
            let full = match target.subresource.as_str() {
                "" => target.resource.clone(),
                sub => format!("{}/{sub}", target.resource),
            };
            let place = match target.object.namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let group = &target.group_version.group;
            let why = format!("User {user:?} cannot {verb} resource {full:?} in API group {group:?} {place}");
            (why, Some(target.group_resource()), target.object.name.as_str())
        }
    };
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    Status::forbidden(&resource.unwrap_or_else(|| api::GroupResource::new("", "")), name, &why)
}
