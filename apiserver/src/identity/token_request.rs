//! `serviceaccounts/token`: signs a token for a service account
//! (`pkg/registry/core/serviceaccount/storage/token.go`).

use std::sync::Arc;

use api::field::{Error, Path};
use api::{Document, GroupKind, GroupResource, ObjectName, Status, StatusResult, Timestamp, time};
use serde_json::Value;

use super::authenticator::Tokens;
use super::claims::{Claims, Private, Ref};
use crate::attributes::Attributes;
use crate::parts::Answer;
use crate::view::View;

const DEFAULT_S: i64 = 3600;
const SHORTEST_S: i64 = 600;
const LONGEST_S: i64 = 1 << 32;
/// The life that kubelet asks for when it projects tokens for old clients, which do not read them again: such a token
/// gets a year, and says when its reader should have noticed.
const PROJECTED_S: i64 = 3607;
const YEAR_S: i64 = 365 * 24 * 3600;

/// Answers TokenRequests.
pub(super) struct TokenRequests(pub(super) Arc<Tokens>);

impl Answer for TokenRequests {
    fn answer(
        &self,
        mut request: Document,
        attributes: &Attributes,
        view: &dyn View,
        now: Timestamp,
    ) -> StatusResult<Document> {
        let name = attributes.resource.as_ref().map(|r| r.object.clone()).unwrap_or_default();
        let account = get(view, "serviceaccounts", &name)?;
        complete(&mut request, &account, &name, &self.0)?;
        check(&request)?;
        let bound = bound(&request, &name, view)?;
        let audiences = request.list_at("/spec/audiences").iter().filter_map(Value::as_str).map(str::to_owned);
        let asked = request.i64_at("/spec/expirationSeconds").unwrap_or(DEFAULT_S);
        let mut claims = Claims {
            aud: audiences.collect(),
            exp: now.as_second() + asked,
            iat: now.as_second(),
            nbf: now.as_second(),
            jti: self.0.signer().identifier().ok_or_else(|| Status::internal("no randomness"))?,
            sub: format!("system:serviceaccount:{}:{}", name.namespace, name.name),
            kubernetes: Private { namespace: name.namespace, serviceaccount: Ref::of(&account), ..bound },
        };
        if asked == PROJECTED_S && claims.kubernetes.pod.is_some() && claims.aud == self.0.audiences() {
            claims.kubernetes.warnafter = Some(claims.exp);
            claims.exp = now.as_second() + YEAR_S;
        }
        let token = serde_json::to_value(&claims).ok().and_then(|claims| self.0.signer().sign(claims));
        request.set("/status/token", token.ok_or_else(|| Status::internal("the token cannot be signed"))?);
        let until = Timestamp::from_second(now.as_second() + asked).unwrap_or(now);
        request.set("/status/expirationTimestamp", time::rfc3339(until));
        request.set("/metadata/creationTimestamp", time::rfc3339(now));
        Ok(request)
    }
}

fn get(view: &dyn View, resource: &str, name: &ObjectName) -> StatusResult<Document> {
    let resource = GroupResource::new("", resource);
    view.get(&resource, name).ok_or_else(|| Status::not_found(&resource, &name.name))
}

fn kind() -> GroupKind {
    GroupKind { group: "authentication.k8s.io".into(), kind: "TokenRequest".into() }
}

/// Fills in what the path says, and refuses what contradicts it.
fn complete(request: &mut Document, account: &Document, name: &ObjectName, tokens: &Tokens) -> StatusResult<()> {
    for (field, ours, theirs) in [
        ("name", &name.name, request.name().to_owned()),
        ("namespace", &name.namespace, request.namespace().to_owned()),
    ] {
        if !theirs.is_empty() && *ours != theirs {
            let what = if field == "name" { "name" } else { "namespace" };
            let why = format!("must match the service account {what} if specified");
            let error = Error::invalid(Path::new("metadata").child(field), theirs, why);
            return Err(Status::invalid(&kind(), &name.name, &[error]));
        }
        request.set(&format!("/metadata/{field}"), ours.as_str());
    }
    if !request.uid().is_empty() && request.uid() != account.uid() {
        let (theirs, ours) = (request.uid(), account.uid());
        let why =
            format!("the UID in the token request ({theirs}) does not match the UID of the service account ({ours})");
        let resource = GroupResource::new("authentication.k8s.io", "TokenRequest");
        return Err(Status::conflict(&resource, &name.name, &why));
    }
    request.set("/metadata/uid", account.uid());
    if request.list_at("/spec/audiences").is_empty() {
        request.set("/spec/audiences", tokens.audiences());
    }
    request.set_default("/spec/expirationSeconds", DEFAULT_S);
    request.remove("/status");
    Ok(())
}

fn check(request: &Document) -> StatusResult<()> {
    let seconds = request.i64_at("/spec/expirationSeconds").unwrap_or(DEFAULT_S);
    let why = match seconds {
        ..SHORTEST_S => "may not specify a duration less than 10 minutes",
        SHORTEST_S..=LONGEST_S => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = Error::invalid(Path::new("spec").child("expirationSeconds"), seconds, why);
    Err(Status::invalid(&kind(), "", &[error]))
}

/// The object that the token dies with.
fn bound(request: &Document, account: &ObjectName, view: &dyn View) -> StatusResult<Private> {
    if request.at("/spec/boundObjectRef").is_none_or(Value::is_null) {
        return Ok(Private::default());
    }
    let text = |field: &str| request.str_at(&format!("/spec/boundObjectRef/{field}")).to_owned();
    let namespaced = ObjectName { namespace: account.namespace.clone(), name: text("name") };
    let cluster = ObjectName { namespace: String::new(), name: text("name") };
    let (object, private) = match (text("apiVersion").as_str(), text("kind").as_str()) {
        ("v1" | "", "Pod") => {
            let pod = get(view, "pods", &namespaced)?;
            let private = of_pod(&pod, account, view)?;
            (pod, private)
        }
        ("v1" | "", "Node") => {
            let node = get(view, "nodes", &cluster)?;
            let private = Private { node: Some(Ref::of(&node)), ..Private::default() };
            (node, private)
        }
        ("v1" | "", "Secret") => {
            let secret = get(view, "secrets", &namespaced)?;
            let private = Private { secret: Some(Ref::of(&secret)), ..Private::default() };
            (secret, private)
        }
        (version, kind) => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(why));
        }
    };
    let uid = text("uid");
    if !uid.is_empty() && uid != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        let resource = GroupResource::new("", object.kind());
        return Err(Status::conflict(&resource, object.name(), &why));
    }
    Ok(private)
}

fn of_pod(pod: &Document, account: &ObjectName, view: &dyn View) -> StatusResult<Private> {
    if pod.str_at("/spec/serviceAccountName") != account.name {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            account.name
        )));
    }
    let name = ObjectName { namespace: String::new(), name: pod.str_at("/spec/nodeName").into() };
    let node = (!name.name.is_empty()).then(|| match view.get(&GroupResource::new("", "nodes"), &name) {
        Some(node) => Ref::of(&node),
        // The name alone still tells where the pod is.
        None => Ref { name: name.name, uid: String::new() },
    });
    Ok(Private { pod: Some(Ref::of(pod)), node, ..Private::default() })
}
