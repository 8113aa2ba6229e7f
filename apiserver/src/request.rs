//! What a path and a method ask for (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`).

use std::num::{IntErrorKind, ParseIntError};

use api::{GroupVersion, ObjectName};
use http::Method;

use crate::attributes::{Attributes, ResourceAttributes, User};

/// The query of a request, decoded, in order; a key may stand more than once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string. Pairs with a semicolon or a broken escape are dropped, as Go drops them.
    pub(crate) fn parse(query: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Some((unescape(key, true)?, unescape(value, true)?))
        };
        let parts = query.split('&').filter(|p| !p.is_empty() && !p.contains(';'));
        Self(parts.filter_map(pair).collect())
    }

    /// The first value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of a key.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A bool as Kubernetes' query decoding has it: there and neither "false" nor "0" is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.optional_flag(key).unwrap_or_default()
    }

    /// The same, `None` where the key is not there.
    pub(crate) fn optional_flag(&self, key: &str) -> Option<bool> {
        self.get(key).map(|v| !matches!(v.to_lowercase().as_str(), "false" | "0"))
    }
}

/// Go's words for a number that cannot be read, by the function that reads it.
pub(crate) fn unread_number(function: &str, text: &str, why: &ParseIntError) -> String {
    let why = match why.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

/// Undoes percent escapes; `None` for a broken one or bytes that are no UTF-8.
pub(crate) fn unescape(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? * 16 + hex(rest.next()?)?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// What is asked for, before anyone knows whether it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// The verb as authorization names it.
    pub verb: String,
    /// The decoded path.
    pub path: String,
    /// The resource, where the path is one's.
    pub resource: Option<Target>,
    /// More parts than a route has: nothing is there.
    pub too_deep: bool,
    /// A HEAD, which reads like a GET for authorization, but no resource has it.
    pub head: bool,
}

/// The resource of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) struct Target {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    /// What follows a `proxy` subresource.
    pub rest: String,
    /// The name stands in the path (and is not taken from a field selector).
    pub named: bool,
    /// By the deprecated `/watch/` prefix.
    pub watch_prefix: bool,
    /// The `field=value` terms of the field selector of a list or watch.
    pub fields: Vec<(String, String)>,
}

impl Info {
    /// The attributes for a user.
    pub(crate) fn attributes(&self, user: User) -> Attributes {
        let resource = self.resource.as_ref().map(|t| ResourceAttributes {
            group_version: GroupVersion { group: t.group.clone(), version: t.version.clone() },
            resource: t.resource.clone(),
            subresource: t.subresource.clone(),
            object: ObjectName { namespace: t.namespace.clone(), name: t.name.clone() },
            fields: t.fields.clone(),
        });
        Attributes { user, verb: self.verb.clone(), resource, path: self.path.clone() }
    }
}

/// Reads a method, a path (still escaped) and a query.
pub(crate) fn info(method: &Method, path: &str, query: &Query) -> Info {
    let decoded = unescape(path, false).unwrap_or_else(|| path.to_owned());
    let parts: Vec<&str> = decoded.trim_matches('/').split('/').collect();
    let plain = Info {
        verb: method.as_str().to_lowercase(),
        path: decoded.clone(),
        head: *method == Method::HEAD,
        ..Info::default()
    };
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return plain,
    };
    let mut target = Target { group: group.into(), version: version.into(), ..Target::default() };
    let mut verb = match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    };
    let mut rest = rest;
    if let ["watch", after @ ..] = rest
        && !after.is_empty()
    {
        (verb, rest, target.watch_prefix) = ("watch", after, true);
    }
    let rest = namespace(&mut target, rest);
    let too_deep = names(&mut target, rest);
    let verb = plural_verb(verb, &mut target, query);
    Info { verb: verb.into(), resource: Some(target), too_deep, ..plain }
}

/// Takes `namespaces/{namespace}` off, unless the namespace itself is meant.
fn namespace<'a, 'b>(target: &mut Target, rest: &'b [&'a str]) -> &'b [&'a str] {
    match rest {
        ["namespaces", namespace, after @ ..] => {
            target.namespace = (*namespace).into();
            match after {
                [] | ["status" | "finalize", ..] => rest,
                _ => after,
            }
        }
        _ => rest,
    }
}

/// Resource, name, subresource; whether there is more than that.
fn names(target: &mut Target, rest: &[&str]) -> bool {
    let mut parts = rest.iter().map(|p| (*p).to_owned());
    target.resource = parts.next().unwrap_or_default();
    target.name = parts.next().unwrap_or_default();
    target.named = !target.name.is_empty();
    target.subresource = parts.next().unwrap_or_default();
    target.rest = parts.collect::<Vec<_>>().join("/");
    !target.rest.is_empty() && target.subresource != "proxy"
}

/// Without a name a get is a list or a watch, a delete a deletecollection.
fn plural_verb(verb: &'static str, target: &mut Target, query: &Query) -> &'static str {
    if target.named {
        return verb;
    }
    let verb = match verb {
        "get" if query.flag("watch") => "watch",
        "get" => "list",
        "delete" => "deletecollection",
        other => other,
    };
    if matches!(verb, "list" | "watch" | "deletecollection") {
        let selector = query.get("fieldSelector").unwrap_or_default();
        target.fields = equalities(selector);
        target.name = named_by_selector(selector).unwrap_or_default();
    }
    verb
}

/// The terms `a=b` and `a==b`.
fn equalities(selector: &str) -> Vec<(String, String)> {
    let term = |term: &str| {
        let (field, value) = term.split_once('=').filter(|(field, _)| !field.ends_with('!'))?;
        Some((field.to_owned(), value.strip_prefix('=').unwrap_or(value).to_owned()))
    };
    selector.split(',').filter_map(term).collect()
}

fn named_by_selector(selector: &str) -> Option<String> {
    let term = selector.split(',').find_map(|term| term.strip_prefix("metadata.name="))?;
    let name = term.strip_prefix('=').unwrap_or(term);
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Query, info};
    use expect_test::{Expect, expect};
    use http::Method;

    fn check(method: Method, uri: &str, expect: Expect) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let info = info(&method, path, &Query::parse(query));
        let target = info
            .resource
            .map(|t| format!("{}/{} {}:{}:{}:{}", t.group, t.version, t.namespace, t.resource, t.name, t.subresource));
        expect.assert_eq(&format!("{} {}", info.verb, target.unwrap_or(info.path)));
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        check(Method::GET, "/healthz", expect!["get /healthz"]);
        check(Method::GET, "/api/v1", expect!["get /api/v1"]);
        check(Method::GET, "/api/v1/pods", expect!["list /v1 :pods::"]);
        check(Method::GET, "/api/v1/pods?watch=1", expect!["watch /v1 :pods::"]);
        check(Method::GET, "/api/v1/namespaces/a", expect!["get /v1 a:namespaces:a:"]);
        check(Method::PUT, "/api/v1/namespaces/a/finalize", expect!["update /v1 a:namespaces:a:finalize"]);
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            expect!["deletecollection apps/v1 a:deployments::"],
        );
        check(Method::GET, "/api/v1/watch/namespaces/a/pods/b", expect!["watch /v1 a:pods:b:"]);
        check(Method::GET, "/api/v1/namespaces/a/pods/b/log", expect!["get /v1 a:pods:b:log"]);
        check(Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx", expect!["list /v1 :pods:x:"]);
    }
}
