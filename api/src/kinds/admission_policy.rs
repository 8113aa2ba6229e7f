//! Admission policies and their bindings (`pkg/apis/admissionregistration/{v1/defaults.go,validation}`): expressions are
//! compiled when a policy is written.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cell::{age, row};
use super::thin::match_resources;
use super::webhooks::{conditions, rule_errors};
use super::{Change, Operation, Rules};
use crate::cel::Type;
use crate::cel::admission::Options;
use crate::cel::policy::{Expression, Variables};
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, get, items_mut, list, object, text, texts};
use crate::validation::labels::label_selector;
use crate::validation::{invalid_each, one_of, text as words};
use crate::{Document, Timestamp};

const UNSET: &str = "<unset>";
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const MAX_ANNOTATIONS: usize = 20;
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

/// Rules of both kinds of policies.
pub(super) struct Policy {
    pub mutating: bool,
}

impl Rules for Policy {
    fn default(&self, policy: &mut Document) {
        let spec = object(policy.value_mut(), "spec");
        fill(spec, "failurePolicy", "Fail");
        if let Some(constraints) = spec.get_mut("matchConstraints").filter(|c| c.is_object()) {
            match_constraints(constraints);
        }
        if self.mutating && text(spec, "reinvocationPolicy").is_empty() {
            fill(spec, "reinvocationPolicy", "Never");
        }
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        if self.mutating {
            return;
        }
        match (change.operation, change.subresource, change.old) {
            (Operation::Create, ..) => new.set("/status", serde_json::json!({})),
            (Operation::Update, "", Some(old)) => {
                new.set("/status", old.at("/status").cloned().unwrap_or_else(|| serde_json::json!({})));
            }
            _ => {}
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let nothing = Value::Null;
        let spec = new.at("/spec").unwrap_or(&nothing);
        let unchanged = change.old.is_some_and(|old| old.at("/spec") == new.at("/spec"));
        if change.subresource == "status" || unchanged {
            return Errors::new();
        }
        self.spec(new.name(), spec, &Path::new("spec"))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, policy: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let listed = if self.mutating { "/spec/mutations" } else { "/spec/validations" };
        let kind = match policy.at("/spec/paramKind").filter(|p| !p.is_null()) {
            Some(kind) => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")),
            None => UNSET.into(),
        };
        row![policy.name(), policy.list_at(listed).len(), kind, age(policy, now)]
    }
}

fn match_constraints(constraints: &mut Value) {
    match_resources(constraints);
    for rules in ["resourceRules", "excludeResourceRules"] {
        items_mut(constraints, rules).for_each(|rule| fill(rule, "scope", "*"));
    }
}

impl Policy {
    fn spec(&self, name: &str, spec: &Value, path: &Path) -> Errors {
        let mut errors = one_of(text(spec, "failurePolicy"), &path.child("failurePolicy"), &["Fail", "Ignore"]);
        if let Some(kind) = get(spec, "paramKind") {
            errors.extend(param_kind(kind, &path.child("paramKind")));
        }
        let constraints = path.child("matchConstraints");
        match get(spec, "matchConstraints") {
            None => errors.push(Error::required(constraints, "")),
            Some(given) => {
                errors.extend(resources(given, &constraints));
                let rules = constraints.child("resourceRules");
                if list(given, "resourceRules").is_empty() {
                    errors.push(Error::required(rules.clone(), ""));
                }
                let operations = list(given, "resourceRules").iter().flat_map(|rule| texts(rule, "operations"));
                for operation in operations.filter(|o| self.mutating && !matches!(*o, "CREATE" | "UPDATE")) {
                    let path = rules.child("operations");
                    errors.push(Error::not_supported(path, operation, &["CREATE", "UPDATE"]));
                }
            }
        }
        errors.extend(self.expressions(name, spec, path));
        if self.mutating {
            let policy = text(spec, "reinvocationPolicy");
            errors.extend(one_of(policy, &path.child("reinvocationPolicy"), &["IfNeeded", "Never"]));
        }
        errors
    }

    fn expressions(&self, name: &str, spec: &Value, path: &Path) -> Errors {
        let options = Options { params: get(spec, "paramKind").is_some(), authorizer: true };
        let listed = list(spec, "matchConditions");
        let mut errors = conditions(listed, &path.child("matchConditions"));
        let environment = crate::cel::admission::environment(options);
        for (at, condition) in listed.iter().enumerate() {
            let given = text(condition, "expression");
            let place = path.child("matchConditions").index(at).child("expression");
            if !given.trim().is_empty() {
                errors.extend(fault(&Expression::compile(given, &environment, &[Type::Bool]), place));
            }
        }
        let variables = Variables::compile(list(spec, "variables"), options, &["Object", "JSONPatch"]);
        for (at, (name, expression)) in variables.iter().enumerate() {
            let path = path.child("variables").index(at);
            if name.trim().is_empty() {
                errors.push(Error::required(path.child("name"), "name is not specified"));
            } else if !is_identifier(name) {
                errors.push(Error::invalid(path.child("name"), name.as_str(), "must be a valid CEL identifier"));
            }
            match expression.text.trim() {
                "" => errors.push(Error::required(path.child("expression"), "expression is not specified")),
                _ => errors.extend(fault(expression, path.child("expression"))),
            }
        }
        match self.mutating {
            true => errors.extend(mutations(spec, &variables, &path.child("mutations"))),
            false => errors.extend(validations(name, spec, &variables, path)),
        }
        errors
    }
}

fn fault(expression: &Expression, path: Path) -> Option<Error> {
    let error = expression.program.as_ref().err()?;
    Some(Error::invalid(path, expression.text.as_str(), error.as_str()))
}

fn is_identifier(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first
        && name.chars().all(word)
        && crate::cel::escape(name).is_some_and(|escaped| !escaped.ends_with("__") || escaped == name)
}

fn param_kind(kind: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let (version, name) = (text(kind, "apiVersion"), text(kind, "kind"));
    if version.is_empty() {
        errors.push(Error::required(path.child("apiVersion"), ""));
    } else {
        let (group, last) = version.split_once('/').unwrap_or(("", version));
        if !group.is_empty() {
            errors.extend(invalid_each(&path.child("apiVersion"), group, words::subdomain(group)));
        }
        match last {
            "" => errors.push(Error::invalid(path.child("apiVersion"), version, "version must be specified")),
            last => errors.extend(invalid_each(&path.child("apiVersion"), last, words::label_1035(last))),
        }
    }
    match name {
        "" => errors.push(Error::required(path.child("kind"), "")),
        name => {
            let wrong = words::label_1035(&name.to_lowercase());
            if !wrong.is_empty() {
                let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                errors.push(Error::invalid(path.child("kind"), name, detail));
            }
        }
    }
    errors
}

fn resources(given: &Value, path: &Path) -> Errors {
    let mut errors = one_of(text(given, "matchPolicy"), &path.child("matchPolicy"), &["Equivalent", "Exact"]);
    for key in ["namespaceSelector", "objectSelector"] {
        match get(given, key) {
            None => errors.push(Error::required(path.child(key), "")),
            selector => errors.extend(label_selector(selector, &path.child(key))),
        }
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for (at, rule) in list(given, key).iter().enumerate() {
            let path = path.child(key).index(at);
            let mut seen = BTreeSet::new();
            for (at, name) in texts(rule, "resourceNames").into_iter().enumerate() {
                let path = path.child("resourceNames").index(at);
                errors.extend(invalid_each(&path, name, words::path_segment(name, false)));
                if !seen.insert(name) {
                    errors.push(Error::duplicate(path, name));
                }
            }
            errors.extend(rule_errors(rule, &path));
        }
    }
    errors
}

fn validations(name: &str, spec: &Value, variables: &Variables, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let (listed, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if listed.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.push(Error::required(path.child("validations"), detail));
        errors.push(Error::required(path.child("auditAnnotations"), detail));
        return errors;
    }
    for (at, validation) in listed.iter().enumerate() {
        errors.extend(validation_errors(validation, variables, &path.child("validations").index(at)));
    }
    let path = path.child("auditAnnotations");
    if annotations.len() > MAX_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(Error::invalid(path.clone(), annotations.to_vec(), detail));
    }
    let mut keys = BTreeSet::new();
    for (at, annotation) in annotations.iter().enumerate() {
        let (key, path) = (text(annotation, "key"), path.index(at));
        let full = format!("{name}/{key}");
        errors.extend(invalid_each(&path.child("key"), full.as_str(), words::qualified_name(&full)));
        let (given, place) = (text(annotation, "valueExpression"), path.child("valueExpression"));
        match given.trim().len() {
            0 => errors.push(Error::required(place, "valueExpression is not specified")),
            length if length > MAX_VALUE_EXPRESSION => {
                let detail = format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length");
                errors.push(Error::required(place, detail));
            }
            _ => {
                let wanted = [Type::TEXT, Type::Null];
                errors.extend(fault(&Expression::compile(given, &variables.environment(), &wanted), place));
            }
        }
        if !keys.insert(key) {
            errors.push(Error::duplicate(path.child("key"), key));
        }
    }
    errors
}

fn validation_errors(validation: &Value, variables: &Variables, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let given = text(validation, "expression");
    match given.trim() {
        "" => errors.push(Error::required(path.child("expression"), "expression is not specified")),
        _ => {
            let compiled = Expression::compile(given, &variables.environment(), &[Type::Bool]);
            errors.extend(fault(&compiled, path.child("expression")));
        }
    }
    let (given, place) = (text(validation, "messageExpression"), path.child("messageExpression"));
    if !given.is_empty() && given.trim().is_empty() {
        errors.push(Error::invalid(place, given, "must be non-empty if specified"));
    } else if !given.is_empty() {
        errors.extend(fault(&Expression::compile(given, &variables.plain_environment(), &[Type::TEXT]), place));
    }
    let (message, place) = (text(validation, "message"), path.child("message"));
    if !message.is_empty() && message.trim().is_empty() {
        errors.push(Error::invalid(place, message, "must be non-empty if specified"));
    } else if message.trim().contains(['\n', '\r']) {
        errors.push(Error::invalid(place, message, "must not contain line breaks"));
    }
    let reason = text(validation, "reason");
    if !reason.is_empty() && !REASONS.contains(&reason) {
        errors.push(Error::not_supported(path.child("reason"), reason, &REASONS));
    }
    errors
}

fn mutations(spec: &Value, variables: &Variables, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let listed = list(spec, "mutations");
    if listed.is_empty() {
        errors.push(Error::required(path.clone(), "mutations must contain at least one item"));
    }
    for (at, mutation) in listed.iter().enumerate() {
        let (kind, path) = (text(mutation, "patchType"), path.index(at));
        let (own, other, wanted) = match kind {
            "JSONPatch" => ("jsonPatch", "applyConfiguration", vec![Type::list(Type::DYN)]),
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Vec::new()),
            "" => {
                errors.push(Error::required(path.child("patchType"), ""));
                continue;
            }
            kind => {
                let known = ["ApplyConfiguration", "JSONPatch"];
                errors.push(Error::not_supported(path.child("patchType"), kind, &known));
                continue;
            }
        };
        if get(mutation, other).is_some() {
            let detail = format!("must not be specified when patchType is {kind}");
            errors.push(Error::invalid(path.child(other), format!("{{{other}}}"), detail));
        }
        let Some(body) = get(mutation, own) else {
            let detail = format!("must be specified when patchType is {kind}");
            errors.push(Error::required(path.child(own), detail));
            continue;
        };
        let (given, place) = (text(body, "expression"), path.child(own).child("expression"));
        match given.trim() {
            "" => errors.push(Error::required(place, "")),
            _ => errors.extend(fault(&Expression::compile(given, &variables.environment(), &wanted), place)),
        }
    }
    errors
}

/// Rules of both kinds of bindings.
pub(super) struct Binding {
    pub mutating: bool,
}

impl Rules for Binding {
    fn default(&self, binding: &mut Document) {
        if let Some(resources) = binding.at_mut("/spec/matchResources").filter(|r| r.is_object()) {
            match_constraints(resources);
        }
    }

    fn validate(&self, new: &Document, _change: &Change<'_>) -> Errors {
        let nothing = Value::Null;
        let (spec, path) = (new.at("/spec").unwrap_or(&nothing), Path::new("spec"));
        let mut errors = match text(spec, "policyName") {
            "" => vec![Error::required(path.child("policyName"), "")],
            name => invalid_each(&path.child("policyName"), name, words::subdomain(name)),
        };
        if let Some(reference) = get(spec, "paramRef") {
            errors.extend(param_ref(reference, &path.child("paramRef")));
        }
        if let Some(given) = get(spec, "matchResources") {
            errors.extend(resources(given, &path.child("matchResources")));
        }
        if !self.mutating {
            errors.extend(actions(&texts(spec, "validationActions"), &path.child("validationActions")));
        }
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, binding: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let reference = binding.at("/spec/paramRef").filter(|p| !p.is_null());
        let shown = match reference.map_or("", |reference| text(reference, "name")) {
            "" => UNSET.into(),
            name => {
                let namespace = reference.map_or("", |reference| text(reference, "namespace"));
                format!("{}/{name}", if namespace.is_empty() { "*" } else { namespace })
            }
        };
        row![binding.name(), binding.str_at("/spec/policyName"), shown, age(binding, now)]
    }
}

fn param_ref(reference: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let (name, selector) = (text(reference, "name"), get(reference, "selector"));
    if !name.is_empty() {
        errors.extend(invalid_each(&path.child("name"), name, words::path_segment(name, false)));
    }
    errors.extend(label_selector(selector, &path.child("selector")));
    if !name.is_empty() && selector.is_some() {
        for key in ["name", "selector"] {
            errors.push(Error::forbidden(path.child(key), "name and selector are mutually exclusive"));
        }
    }
    if name.is_empty() && selector.is_none() {
        errors.push(Error::required(path.clone(), "one of name or selector must be specified"));
    }
    let action = text(reference, "parameterNotFoundAction");
    errors.extend(one_of(action, &path.child("parameterNotFoundAction"), &["Deny", "Allow"]));
    errors
}

fn actions(actions: &[&str], path: &Path) -> Errors {
    let mut errors = Errors::new();
    if actions.is_empty() {
        errors.push(Error::required(path.clone(), "at least one validation action is required"));
    }
    let mut seen = BTreeSet::new();
    for (at, action) in actions.iter().enumerate() {
        if !matches!(*action, "Deny" | "Warn" | "Audit") {
            errors.push(Error::not_supported(path.index(at), *action, &["Audit", "Deny", "Warn"]));
        }
        if !seen.insert(*action) {
            errors.push(Error::duplicate(path.index(at), *action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                      response and headers serves no purpose)";
        errors.push(Error::invalid(path.clone(), actions.to_vec(), detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::Policy;
    use crate::field::Path;
    use serde_json::{Value, json};

    fn errors(validation: Value) -> Vec<String> {
        let rules =
            json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
        let constraints =
            json!({"matchPolicy": "Exact", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": rules});
        let spec = json!({"failurePolicy": "Fail", "matchConstraints": constraints, "validations": [validation],
            "variables": [{"name": "n", "expression": "object.spec.n"}]});
        Policy { mutating: false }.spec("p", &spec, &Path::new("spec")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn expressions_are_compiled_when_written() {
        assert_eq!(
            errors(json!({"expression": "variables.n > 1", "messageExpression": "string(variables.n)"})),
            [""; 0]
        );
        let undeclared = errors(json!({"expression": "params.x == 1"}));
        let want = "spec.validations[0].expression: Invalid value: \"params.x == 1\": compilation failed: ERROR: \
                    <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^";
        assert_eq!(undeclared, [want]);
        let typed = errors(json!({"expression": "'a'"}));
        assert_eq!(
            typed,
            ["spec.validations[0].expression: Invalid value: \"'a'\": must evaluate to bool but got string"]
        );
        assert_eq!(errors(json!({})), ["spec.validations[0].expression: Required value: expression is not specified"]);
    }
}
