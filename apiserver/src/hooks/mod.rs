//! Admission webhooks: their configurations, compiled once for each change, and what is said to them and back.
//!
//! All of it is pure. The write machine asks ([`crate::write::Ask::Webhooks`]), [`crate::perform`] calls.

mod authority;
mod compile;
mod matching;
mod review;

use std::sync::Arc;

use api::LabelSelector;
use api::cel::admission::Conditions;
use serde_json::Value;

pub(crate) use authority::Authority;
#[cfg(test)]
pub(crate) use compile::compile;
pub(crate) use compile::{Compiled, matching, target};
pub(crate) use matching::{Invocation, Subject, invocation, is_exempt, selected};
pub(crate) use review::{Objects, Response, review, verify};

/// One webhook of a configuration.
#[derive(Debug)]
pub(crate) struct Hook {
    /// The configuration's name.
    pub configuration: String,
    /// The webhook's own.
    pub name: String,
    /// When it is meant.
    pub matching: Matching,
    /// Further conditions.
    pub conditions: Conditions,
    /// Whether a webhook that cannot be asked counts as if it had allowed.
    pub ignore: bool,
    /// Whether it may be asked in a dry run.
    pub dry_run: bool,
    /// Whether it wants to be asked again after others changed the object (mutating ones).
    pub again: bool,
    /// How long it may take, in seconds.
    pub timeout_seconds: u64,
    /// The first version of AdmissionReview it takes that is known here.
    pub review: Option<&'static str>,
    /// Where it is.
    pub target: Target,
}

/// Which requests a webhook or a policy concerns.
#[derive(Debug)]
pub(crate) struct Matching {
    /// Any of them, in order.
    pub rules: Vec<Rule>,
    /// None of them.
    pub excluded: Vec<Rule>,
    /// Whether rules mean the versions they name and no equivalent ones.
    pub exact: bool,
    /// Which namespaces' objects are meant.
    pub namespaces: Result<LabelSelector, String>,
    /// Which objects are meant.
    pub objects: Result<LabelSelector, String>,
}

/// A `RuleWithOperations`, named objects only where names are given.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct Rule {
    pub operations: Vec<String>,
    pub groups: Vec<String>,
    pub versions: Vec<String>,
    pub resources: Vec<String>,
    pub scope: String,
    pub names: Vec<String>,
}

/// A `clientConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where.
    pub place: Place,
    /// PEM of whom to trust; empty: whom the host trusts.
    pub ca_bundle: Vec<u8>,
}

/// The two forms of a `clientConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Place {
    Url(String),
    Service {
        namespace: String,
        name: String,
        path: String,
        port: u16,
    },
    /// Neither.
    Nowhere,
}

/// A question to a webhook.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Whom to ask.
    pub hook: Arc<Hook>,
    /// The AdmissionReview, but for `request.uid`, which whoever sends it gives.
    pub review: Value,
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hook, &other.hook) && self.review == other.review
    }
}

impl Eq for Call {}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The `request.uid` that was sent.
    pub uid: String,
    /// The AdmissionReview; or why there is none, in the words of Go's client.
    pub review: Result<Value, String>,
}

/// All webhooks, in the order they are asked: by configuration, then as they stand in it.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct Hooks {
    pub mutating: Vec<Arc<Hook>>,
    pub validating: Vec<Arc<Hook>>,
}
