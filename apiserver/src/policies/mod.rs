//! Admission policies and their bindings, compiled once for each change (`k8s.io/apiserver/pkg/admission/plugin/policy`).
//!
//! `write/policies.rs` evaluates them as a part of the write machine; `status.rs` says what is wrong with them.

mod compile;
mod params;
pub(crate) mod status;

use api::cel::admission::Conditions;
use api::cel::policy::{Expression, Variables};
use serde_json::Value;

pub(crate) use compile::Compiled;
pub(crate) use params::params;

use crate::hooks::Matching;

/// All policies that have a binding, by name.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct Policies {
    pub mutating: Vec<Policy>,
    pub validating: Vec<Policy>,
}

/// One policy with its bindings.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Its name.
    pub name: String,
    /// Which requests it concerns.
    pub matching: Matching,
    /// Whether what goes wrong counts as if it had admitted.
    pub ignore: bool,
    /// `apiVersion` and `kind` of its parameters.
    pub param_kind: Option<(String, String)>,
    /// Further conditions.
    pub conditions: Conditions,
    /// What its expressions share.
    pub variables: Variables,
    /// What must hold (validating).
    pub validations: Vec<Validation>,
    /// What audit is to note, by key (validating).
    pub annotations: Vec<(String, Expression)>,
    /// Whether it wants to be asked again after others changed the object (mutating).
    pub again: bool,
    /// What is changed (mutating).
    pub mutations: Vec<Mutation>,
    /// Where it is in force.
    pub bindings: Vec<Binding>,
}

/// A `Validation`.
#[derive(Debug)]
#[allow(missing_docs)]
pub(crate) struct Validation {
    pub expression: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    pub reason: String,
}

/// A `Mutation`.
#[derive(Debug)]
pub(crate) struct Mutation {
    /// What gives the patch.
    pub expression: Expression,
    /// Whether that is a list of JSONPatch; otherwise it is a part of the object to apply.
    pub json_patch: bool,
}

/// A binding.
#[derive(Debug)]
#[allow(missing_docs)]
pub(crate) struct Binding {
    pub name: String,
    pub matching: Option<Matching>,
    pub param_ref: Option<Value>,
    pub actions: Vec<String>,
}
