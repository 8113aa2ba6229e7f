//! What is wrong with a policy's expressions for the kinds that it concerns: a warning in its status, never a refusal
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`).

use super::admission::{Options, environment};
use super::policy::{Expression, Variables};
use super::{Environment, Type};
use crate::tree::text;
use crate::{Document, GroupVersionKind};

/// What may be said about one expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it stands: `spec.validations[0].expression`.
    pub field: String,
    /// What is wrong with it, for each kind.
    pub text: String,
}

/// Checks the validations of a ValidatingAdmissionPolicy against the kinds it concerns. `params` is the type of its
/// parameters, where it has some and their schema is known.
pub fn warnings(policy: &Document, kinds: &[(GroupVersionKind, Type)], params: Option<&Type>) -> Vec<Warning> {
    let has_params = policy.at("/spec/paramKind").is_some_and(|kind| !kind.is_null());
    let options = Options { params: has_params, authorizer: true };
    let typed: Vec<(&GroupVersionKind, Environment)> = kinds
        .iter()
        .map(|(kind, of)| {
            let mut base = environment(options).with("object", of.clone()).with("oldObject", of.clone());
            if let Some(params) = params.filter(|_| has_params) {
                base = base.with("params", params.clone());
            }
            (kind, Variables::within(policy.list_at("/spec/variables"), base).environment())
        })
        .collect();
    let fault = |expression: &str| {
        let one = |(kind, environment): &(&GroupVersionKind, Environment)| {
            let error = Expression::compile(expression, environment, &[]).program.err()?;
            let error = error.strip_prefix("compilation failed: ").unwrap_or(&error);
            let GroupVersionKind { group, version, kind } = kind;
            Some(format!("{group}/{version}, Kind={kind}: {error}\n"))
        };
        let faults: Vec<String> = typed.iter().filter_map(one).collect();
        (!faults.is_empty()).then(|| faults.join("\n"))
    };
    let mut found = Vec::new();
    for (at, validation) in policy.list_at("/spec/validations").iter().enumerate() {
        for key in ["expression", "messageExpression"] {
            let expression = text(validation, key);
            if key == "messageExpression" && expression.is_empty() {
                continue;
            }
            let field = format!("spec.validations[{at}].{key}");
            found.extend(fault(expression).map(|text| Warning { field, text }));
        }
    }
    found
}
