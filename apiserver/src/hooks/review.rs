//! AdmissionReview, there and back (`k8s.io/apiserver/pkg/admission/plugin/webhook/request`).

use api::{Document, GroupVersionKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Invocation, Reply, Subject};
use crate::attributes::User;
use crate::identity::user_info;

/// The objects of a review, in the form the webhook wants.
#[derive(Clone, Copy, Default)]
#[allow(missing_docs)]
pub(crate) struct Objects<'a> {
    pub object: Option<&'a Document>,
    pub old: Option<&'a Document>,
}

/// The review, but for `request.uid`.
pub(crate) fn review(
    version: &str,
    subject: &Subject,
    invocation: &Invocation,
    objects: Objects<'_>,
    user: &User,
    options: &Value,
    dry_run: bool,
) -> Value {
    let requested = subject.requested();
    let mut request = Map::new();
    let mut set = |key: &str, value: Value| drop(request.insert(key.into(), value));
    set("kind", kind(&invocation.kind));
    set("resource", resource(invocation));
    set("requestKind", kind(&requested.kind));
    set("requestResource", resource(&requested));
    if !subject.subresource.is_empty() {
        set("subResource", subject.subresource.as_str().into());
        set("requestSubResource", subject.subresource.as_str().into());
    }
    for (key, text) in [("name", &subject.name), ("namespace", &subject.namespace)] {
        if !text.is_empty() {
            set(key, text.as_str().into());
        }
    }
    let value = |document: Option<&Document>| document.map_or(Value::Null, |d| d.value().clone());
    set("operation", subject.operation.into());
    set("userInfo", user_info(user));
    set("object", value(objects.object));
    set("oldObject", value(objects.old));
    set("dryRun", dry_run.into());
    set("options", options.clone());
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
}

fn kind(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn resource(of: &Invocation) -> Value {
    json!({"group": of.resource.group, "version": of.version, "resource": of.resource.resource})
}

/// What a webhook said.
#[derive(Debug, PartialEq)]
#[allow(missing_docs)]
pub(crate) struct Response {
    pub allowed: bool,
    /// Operations of a JSON patch; empty: none.
    pub patch: Vec<Value>,
    /// A `Status` that goes with a refusal.
    pub result: Value,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
}

/// Reads a reply; the error is the reason behind `failed calling webhook`.
pub(crate) fn verify(reply: &Reply, version: &str, mutating: bool) -> Result<Response, String> {
    let review = reply.review.as_ref().map_err(|why| format!("failed to call webhook: {why}"))?;
    let invalid = |why: String| format!("received invalid webhook response: {why}");
    let response = review.get("response").filter(|response| response.is_object());
    let response = response.ok_or_else(|| invalid("webhook response was absent".into()))?;
    if version == "v1" {
        identity(review, response, &reply.uid).map_err(invalid)?;
        patched(response, mutating).map_err(invalid)?;
    }
    let patch = match mutating {
        true => operations(response)?,
        false => Vec::new(),
    };
    let strings = |key: &str| response.get(key).and_then(Value::as_array).into_iter().flatten();
    let annotations = response.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten();
    Ok(Response {
        allowed: response.get("allowed").and_then(Value::as_bool).unwrap_or_default(),
        patch,
        result: response.get("status").cloned().unwrap_or_default(),
        warnings: strings("warnings").filter_map(Value::as_str).map(str::to_owned).collect(),
        annotations: annotations.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
    })
}

/// The answer is to this question, and is one.
fn identity(review: &Value, response: &Value, uid: &str) -> Result<(), String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let given = text(response, "uid");
    if given != uid {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let (version, kind) = (text(review, "apiVersion"), text(review, "kind"));
    if (version.as_str(), kind.as_str()) == ("admission.k8s.io/v1", "AdmissionReview") {
        return Ok(());
    }
    let version = if version.contains('/') { version } else { format!("/{version}") };
    let wanted = "admission.k8s.io/v1, Kind=AdmissionReview";
    Err(format!("expected webhook response of {wanted}, got {version}, Kind={kind}"))
}

fn patched(response: &Value, mutating: bool) -> Result<(), String> {
    let patch = response.get("patch").and_then(Value::as_str).is_some_and(|patch| !patch.is_empty());
    let kind = response.get("patchType").and_then(Value::as_str);
    match (mutating, patch, kind) {
        (true, true, None) => Err("webhook returned response.patch but not response.patchType".into()),
        (true, false, Some(_)) => Err("webhook returned response.patchType but not response.patch".into()),
        (true, true, Some("")) => Err("webhook returned invalid response.patchType of \"\"".into()),
        (false, true, _) => Err("validating webhook may not return response.patch".into()),
        (false, false, Some(_)) => Err("validating webhook may not return response.patchType".into()),
        _ => Ok(()),
    }
}

fn operations(response: &Value) -> Result<Vec<Value>, String> {
    let Some(text) = response.get("patch").and_then(Value::as_str).filter(|text| !text.is_empty()) else {
        return Ok(Vec::new());
    };
    let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
    let bytes = STANDARD.decode(text).map_err(|error| undecodable(error.to_string()))?;
    let operations: Vec<Value> = serde_json::from_slice(&bytes).map_err(|error| undecodable(error.to_string()))?;
    let kind = response.get("patchType").and_then(Value::as_str).unwrap_or("JSONPatch");
    match kind == "JSONPatch" || operations.is_empty() {
        true => Ok(operations),
        false => Err(format!("unsupported patch type {kind:?}")),
    }
}
