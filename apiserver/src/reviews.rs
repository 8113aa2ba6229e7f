//! Access reviews: may somebody do something, and what may I do
//! (`pkg/registry/authorization`, `pkg/apis/authorization/validation`).

use std::sync::Arc;

use api::field::{Error, Path};
use api::{Document, GroupKind, GroupVersion, ObjectName, Status, StatusResult, Timestamp};
use serde_json::{Map, Value, json};

use crate::attributes::{Attributes, ResourceAttributes, User};
use crate::authz::{self, Authorizer, Decision, Index};
use crate::parts::Answer;
use crate::view::View;

const GROUP: &str = "authorization.k8s.io";

type Authorizers = Vec<Arc<dyn Authorizer>>;

/// What answers the four reviews.
pub(crate) fn answers(authorizers: &[Arc<dyn Authorizer>]) -> Vec<(&'static str, &'static str, Arc<dyn Answer>)> {
    let access = |whose| Arc::new(Access { whose, authorizers: authorizers.to_vec() }) as Arc<dyn Answer>;
    vec![
        (GROUP, "subjectaccessreviews", access(Whose::Subject)),
        (GROUP, "localsubjectaccessreviews", access(Whose::Local)),
        (GROUP, "selfsubjectaccessreviews", access(Whose::Own)),
        (GROUP, "selfsubjectrulesreviews", Arc::new(Rules)),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    Subject,
    Local,
}

struct Access {
    whose: Whose,
    authorizers: Authorizers,
}

impl Answer for Access {
    fn answer(
        &self,
        mut review: Document,
        attributes: &Attributes,
        view: &dyn View,
        _: Timestamp,
    ) -> StatusResult<Document> {
        let path = attributes.resource.as_ref().map(|r| r.object.namespace.clone()).unwrap_or_default();
        if self.whose == Whose::Local && review.namespace() != path && !review.namespace().is_empty() {
            return Err(Status::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {}",
                review.namespace()
            )));
        }
        check(&review, self.whose, &path)?;
        if self.whose == Whose::Local {
            review.set("/metadata/namespace", path.as_str());
        }
        let user = match self.whose {
            Whose::Own => attributes.user.clone(),
            Whose::Subject | Whose::Local => subject(&review),
        };
        let asked = asked(&review, user);
        review.set("/status", status(&authz::decide(&self.authorizers, &asked, view)));
        Ok(review)
    }
}

fn status(decision: &Decision) -> Value {
    let (allowed, denied, reason) = match decision {
        Decision::Allow { reason } => (true, false, reason),
        Decision::Deny { reason } => (false, true, reason),
        Decision::NoOpinion { reason } => (false, false, reason),
    };
    let mut status = Map::from_iter([("allowed".to_owned(), allowed.into())]);
    if denied {
        status.insert("denied".into(), true.into());
    }
    if !reason.is_empty() {
        status.insert("reason".into(), reason.as_str().into());
    }
    status.into()
}

fn check(review: &Document, whose: Whose, namespace: &str) -> StatusResult<()> {
    let there = |pointer: &str| review.at(pointer).is_some_and(|v| !v.is_null());
    let (resource, plain) = (there("/spec/resourceAttributes"), there("/spec/nonResourceAttributes"));
    let spec = Path::new("spec");
    let mut errors = Vec::new();
    if resource == plain {
        let value = path_value(review);
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(Error::invalid(spec.clone(), value, why));
    }
    errors.extend(selectors(review, &spec.child("resourceAttributes")));
    if whose != Whose::Own && review.str_at("/spec/user").is_empty() && review.list_at("/spec/groups").is_empty() {
        errors.push(Error::invalid(spec.child("user"), "", "at least one of user or group must be specified"));
    }
    if whose == Whose::Local {
        let theirs = review.str_at("/spec/resourceAttributes/namespace");
        if resource && theirs != namespace {
            let path = spec.child("resourceAttributes").child("namespace");
            errors.push(Error::invalid(path, theirs, "must match metadata.namespace"));
        }
        if plain {
            let value = path_value(review);
            let why = "disallowed on this kind of request";
            errors.push(Error::invalid(spec.child("nonResourceAttributes"), value, why));
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => {
            // Upstream leaves the kind out.
            let kind = GroupKind { group: GROUP.into(), kind: String::new() };
            Err(Status::invalid(&kind, "", &errors))
        }
    }
}

/// A selector is said in one of two forms.
fn selectors(review: &Document, path: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    for field in ["fieldSelector", "labelSelector"] {
        let pointer = format!("/spec/resourceAttributes/{field}");
        if review.at(&pointer).is_none_or(Value::is_null) {
            continue;
        }
        let path = path.child(field);
        let raw = review.str_at(&format!("{pointer}/rawSelector"));
        match (raw, review.list_at(&format!("{pointer}/requirements"))) {
            ("", []) => {
                let detail = format!("when {path} is specified, requirements or rawSelector is required");
                errors.push(Error::required(path.child("requirements"), detail));
            }
            ("", _) | (_, []) => {}
            (raw, _) => {
                let detail = "may not specified at the same time as requirements";
                errors.push(Error::invalid(path.child("rawSelector"), raw, detail));
            }
        }
    }
    errors
}

/// The attributes of a path as Go's error text shows its own type.
fn path_value(review: &Document) -> Value {
    let text = |field: &str| review.str_at(&format!("/spec/nonResourceAttributes/{field}")).to_owned();
    match review.at("/spec/nonResourceAttributes").is_none_or(Value::is_null) {
        true => Value::Null,
        false => json!({"Path": text("path"), "Verb": text("verb")}),
    }
}

fn strings(review: &Document, pointer: &str) -> Vec<String> {
    review.list_at(pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn subject(review: &Document) -> User {
    let extra = review.at("/spec/extra").and_then(Value::as_object);
    let values = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    User {
        name: review.str_at("/spec/user").into(),
        uid: review.str_at("/spec/uid").into(),
        groups: strings(review, "/spec/groups"),
        extra: extra.into_iter().flatten().map(|(key, value)| (key.clone(), values(value))).collect(),
    }
}

fn asked(review: &Document, user: User) -> Attributes {
    let text = |field: &str| review.str_at(&format!("/spec/resourceAttributes/{field}")).to_owned();
    if review.at("/spec/resourceAttributes").is_none_or(Value::is_null) {
        let text = |field: &str| review.str_at(&format!("/spec/nonResourceAttributes/{field}")).to_owned();
        return Attributes { user, verb: text("verb"), resource: None, path: text("path") };
    }
    let target = ResourceAttributes {
        group_version: GroupVersion { group: text("group"), version: text("version") },
        resource: text("resource"),
        subresource: text("subresource"),
        object: ObjectName { namespace: text("namespace"), name: text("name") },
        fields: fields(review),
    };
    Attributes { user, verb: text("verb"), resource: Some(target), path: String::new() }
}

/// The terms of the review's field selector that ask for one value.
fn fields(review: &Document) -> Vec<(String, String)> {
    const AT: &str = "/spec/resourceAttributes/fieldSelector";
    let raw = review.str_at(&format!("{AT}/rawSelector")).split(',').filter_map(|term| term.split_once('='));
    let raw = raw.filter(|(key, _)| !key.ends_with('!'));
    let mut fields: Vec<(String, String)> =
        raw.map(|(key, value)| (key.to_owned(), value.trim_start_matches('=').to_owned())).collect();
    for term in review.list_at(&format!("{AT}/requirements")) {
        let values = term.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if let (Some("In"), Some(key), [Value::String(value)]) =
            (term.get("operator").and_then(Value::as_str), term.get("key").and_then(Value::as_str), values)
        {
            fields.push((key.to_owned(), value.clone()));
        }
    }
    fields
}

/// Answers SelfSubjectRulesReviews.
struct Rules;

impl Answer for Rules {
    fn answer(
        &self,
        mut review: Document,
        attributes: &Attributes,
        view: &dyn View,
        _: Timestamp,
    ) -> StatusResult<Document> {
        let namespace = review.str_at("/spec/namespace");
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let held = Index::of(view).held(&attributes.user, namespace);
        let resources = held.rules.iter().filter(|r| !r.resources.is_empty()).map(|r| r.resource_info());
        let paths = held.rules.iter().filter(|r| !r.non_resource_urls.is_empty()).map(|r| r.path_info());
        let mut errors = held.errors;
        let node = authz::node_name(&attributes.user).is_some();
        if node {
            errors.insert(0, "node authorizer does not support user rule resolution".into());
        }
        let mut status = json!({
            "resourceRules": resources.collect::<Vec<_>>(),
            "nonResourceRules": paths.collect::<Vec<_>>(),
            "incomplete": node,
        });
        if !errors.is_empty() {
            status["evaluationError"] = authz::aggregate(&errors).into();
        }
        review.set("/spec", json!({}));
        review.set("/status", status);
        Ok(review)
    }
}
