//! From policy objects to policies; done again only when one of them or of their bindings changed.

use std::sync::Arc;

use api::cel::Type;
use api::cel::admission::{Conditions, Options};
use api::cel::policy::{Expression, Variables};
use api::{Document, GroupResource};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Binding, Mutation, Policies, Policy, Validation};
use crate::hooks::matching;
use crate::view::View;

const GROUP: &str = "admissionregistration.k8s.io";
const KINDS: [&str; 4] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
];
/// Objects that expressions of mutating policies may make.
const MADE: [&str; 2] = ["Object", "JSONPatch"];

/// The policies as of the newest objects.
#[derive(Default)]
pub(crate) struct Compiled(Mutex<Option<([u64; 4], Arc<Policies>)>>);

impl Compiled {
    /// As of now.
    pub(crate) fn current(&self, view: &dyn View) -> Arc<Policies> {
        let kinds = KINDS.map(|plural| GroupResource::new(GROUP, plural));
        let revisions = kinds.each_ref().map(|kind| view.revision(kind));
        let mut compiled = self.0.lock();
        if let Some((_, policies)) = compiled.as_ref().filter(|(known, _)| *known == revisions) {
            return Arc::clone(policies);
        }
        let [mutating, mutating_bindings, validating, validating_bindings] = kinds;
        let all = |kind: &GroupResource, bindings: &GroupResource| {
            policies(view.list(kind, None), &view.list(bindings, None))
        };
        let policies = Arc::new(Policies {
            mutating: all(&mutating, &mutating_bindings),
            validating: all(&validating, &validating_bindings),
        });
        *compiled = Some((revisions, Arc::clone(&policies)));
        policies
    }
}

fn policies(mut definitions: Vec<Document>, bindings: &[Document]) -> Vec<Policy> {
    definitions.sort_by(|a, b| a.name().cmp(b.name()));
    let of = |definition: &Document| {
        let mine = bindings.iter().filter(|binding| binding.str_at("/spec/policyName") == definition.name());
        let mut bindings: Vec<Binding> = mine.map(bound).collect();
        bindings.sort_by(|a, b| a.name.cmp(&b.name));
        (!bindings.is_empty()).then(|| policy(definition, bindings))
    };
    definitions.iter().filter_map(of).collect()
}

fn bound(binding: &Document) -> Binding {
    let given = |pointer: &str| binding.at(pointer).filter(|value| !value.is_null());
    let actions = binding.list_at("/spec/validationActions").iter();
    Binding {
        name: binding.name().to_owned(),
        matching: given("/spec/matchResources").map(|resources| matching(resources, "resourceRules")),
        param_ref: given("/spec/paramRef").cloned(),
        actions: actions.filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn policy(definition: &Document, bindings: Vec<Binding>) -> Policy {
    let kind = definition.at("/spec/paramKind").filter(|kind| !kind.is_null());
    let options = Options { params: kind.is_some(), authorizer: true };
    let variables = Variables::compile(definition.list_at("/spec/variables"), options, &MADE);
    let (environment, plain) = (variables.environment(), variables.plain_environment());
    let validation = |item: &Value| {
        let message = text(item, "messageExpression");
        Validation {
            expression: Expression::compile(&text(item, "expression"), &environment, &[Type::Bool]),
            message: text(item, "message"),
            message_expression: (!message.is_empty()).then(|| Expression::compile(&message, &plain, &[Type::TEXT])),
            reason: text(item, "reason"),
        }
    };
    let annotation = |item: &Value| {
        let wanted = [Type::TEXT, Type::Null];
        (text(item, "key"), Expression::compile(&text(item, "valueExpression"), &environment, &wanted))
    };
    let mutation = |item: &Value| {
        let json_patch = text(item, "patchType") == "JSONPatch";
        let body = item.get(if json_patch { "jsonPatch" } else { "applyConfiguration" });
        let expression =
            Expression::compile(&body.map(|b| text(b, "expression")).unwrap_or_default(), &environment, &[]);
        Mutation { expression, json_patch }
    };
    Policy {
        name: definition.name().to_owned(),
        matching: matching(definition.at("/spec/matchConstraints").unwrap_or(&Value::Null), "resourceRules"),
        ignore: definition.str_at("/spec/failurePolicy") == "Ignore",
        param_kind: kind.map(|kind| (text(kind, "apiVersion"), text(kind, "kind"))),
        conditions: Conditions::compile(definition.list_at("/spec/matchConditions"), options),
        validations: definition.list_at("/spec/validations").iter().map(validation).collect(),
        annotations: definition.list_at("/spec/auditAnnotations").iter().map(annotation).collect(),
        again: definition.str_at("/spec/reinvocationPolicy") == "IfNeeded",
        mutations: definition.list_at("/spec/mutations").iter().map(mutation).collect(),
        variables,
        bindings,
    }
}
