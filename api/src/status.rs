//! Status: how every failure is told to a client (`k8s.io/apimachinery/pkg/api/errors`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::field;
use crate::name::{GroupKind, GroupResource};
use crate::quote::quote;

/// A result whose failure is already in the client's terms.
pub type StatusResult<T> = Result<T, Box<Status>>;

/// A `v1.Status` of kind Failure (or, rarely, Success).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Status {
    pub kind: String,
    pub api_version: String,
    #[serde(default)]
    pub metadata: ListMeta,
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    #[serde(default)]
    pub code: u16,
}

/// The `metadata` of a Status or list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ListMeta {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "continue")]
    pub continue_: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<u64>,
}

/// What the failure is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One cause of a failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Status {
    /// A failure with a code, reason and message, without details.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: ListMeta::default(),
            status: "Failure".into(),
            message: message.into(),
            reason: reason.into(),
            details: None,
            code,
        })
    }

    /// The same with details.
    pub fn with(mut self: Box<Self>, details: Details) -> Box<Self> {
        self.details = Some(details);
        self
    }

    /// 404: the object is not there.
    pub fn not_found(resource: &GroupResource, name: &str) -> Box<Self> {
        Self::failure(404, "NotFound", format!("{resource} {} not found", quote(name))).with(about(resource, name))
    }

    /// 404: the path names nothing the server has.
    pub fn page_not_found() -> Box<Self> {
        Self::failure(404, "NotFound", "the server could not find the requested resource").with(Details::default())
    }

    /// 409: an object of that name is there already.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Box<Self> {
        Self::failure(409, "AlreadyExists", format!("{resource} {} already exists", quote(name)))
            .with(about(resource, name))
    }

    /// 409: the write was made from an older state than the current one, or meets another hindrance.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Box<Self> {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {why}", quote(name));
        Self::failure(409, "Conflict", message).with(about(resource, name))
    }

    /// 409: the object was changed since it was read.
    pub fn modified(resource: &GroupResource, name: &str) -> Box<Self> {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 403 for an identified user.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Box<Self> {
        let message = match (resource.resource.as_str(), name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {} is forbidden: {why}", quote(name)),
        };
        Self::failure(403, "Forbidden", message).with(about(resource, name))
    }

    /// 401.
    pub fn unauthorized() -> Box<Self> {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Box<Self> {
        Self::failure(400, "BadRequest", message)
    }

    /// 405: the resource does not have that verb.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Box<Self> {
        let message = format!("{verb} is not supported on resources of kind \"{resource}\"");
        Self::failure(405, "MethodNotAllowed", message).with(about(resource, ""))
    }

    /// 406.
    pub fn not_acceptable(accepted: &[&str]) -> Box<Self> {
        let list = accepted.join(", ");
        let message = format!("only the following media types are accepted: {list}");
        Self::failure(406, "NotAcceptable", message)
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &[&str]) -> Box<Self> {
        let list = accepted.join(", ");
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {list}");
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Box<Self> {
        Self::failure(413, "RequestEntityTooLarge", message)
    }

    /// 410: the resourceVersion is compacted or the continue token too old.
    pub fn expired(message: impl Into<String>) -> Box<Self> {
        Self::failure(410, "Expired", message)
    }

    /// 422: the object breaks rules; one cause an error.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[field::Error]) -> Box<Self> {
        let causes: Vec<Cause> = errors.iter().map(cause).collect();
        let texts = distinct(errors.iter().map(ToString::to_string));
        let quoted = quote(name);
        let message = match texts.as_slice() {
            [] => format!("{kind} {quoted} is invalid"),
            [one] => format!("{kind} {quoted} is invalid: {one}"),
            many => format!("{kind} {quoted} is invalid: [{}]", many.join(", ")),
        };
        let details = Details {
            name: name.into(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes,
            ..Details::default()
        };
        Self::failure(422, "Invalid", message).with(details)
    }

    /// 500.
    pub fn internal(why: impl fmt::Display) -> Box<Self> {
        let details =
            Details { causes: vec![Cause { message: why.to_string(), ..Cause::default() }], ..Details::default() };
        Self::failure(500, "InternalError", format!("Internal error occurred: {why}")).with(details)
    }

    /// 504 or 429 with a time after which to try again.
    pub fn retry(code: u16, reason: &str, message: impl Into<String>, seconds: u32) -> Box<Self> {
        Self::failure(code, reason, message).with(Details { retry_after_seconds: Some(seconds), ..Details::default() })
    }

    /// The JSON body.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn about(resource: &GroupResource, name: &str) -> Details {
    Details { name: name.into(), group: resource.group.clone(), kind: resource.resource.clone(), ..Details::default() }
}

fn cause(error: &field::Error) -> Cause {
    Cause { reason: error.kind.reason().into(), message: error.body(), field: error.path.to_string() }
}

fn distinct(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for text in texts {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
