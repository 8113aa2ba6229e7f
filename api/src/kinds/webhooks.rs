//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration
//! (`pkg/apis/admissionregistration/{v1/defaults.go,validation}`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::cell::{age, row};
use super::thin::match_resources;
use super::{Change, Rules};
use crate::cel::Type;
use crate::cel::admission::{Options, environment};
use crate::cel::policy::Expression;
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, get, items_mut, list, number, text, texts};
use crate::validation::labels::label_selector;
use crate::validation::{invalid_each, supported, text as words};
use crate::{Document, Timestamp};

/// Rules of both kinds; `mutating` ones have a reinvocation policy.
pub(super) struct Webhooks {
    pub mutating: bool,
}

impl Rules for Webhooks {
    fn default(&self, configuration: &mut Document) {
        for webhook in items_mut(configuration.value_mut(), "webhooks") {
            fill(webhook, "failurePolicy", "Fail");
            match_resources(webhook);
            fill(webhook, "timeoutSeconds", 10);
            if self.mutating {
                fill(webhook, "reinvocationPolicy", "Never");
            }
            items_mut(webhook, "rules").for_each(|rule| fill(rule, "scope", "*"));
            if let Some(service) = webhook.pointer_mut("/clientConfig/service").filter(|s| s.is_object()) {
                fill(service, "port", 443);
            }
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let rules = Strictness::of(change.old);
        let mut errors = Errors::new();
        let mut names = BTreeSet::new();
        for (index, hook) in new.list_at("/webhooks").iter().enumerate() {
            let path = Path::new("webhooks").index(index);
            errors.extend(self.webhook(hook, &rules, &path));
            errors.extend(versions(hook, rules.known_version, &path.child("admissionReviewVersions")));
            let name = text(hook, "name");
            if rules.unique_names && !name.is_empty() && !names.insert(name) {
                errors.push(Error::duplicate(path.child("name"), name));
            }
        }
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, object: &Document, now: Timestamp) -> Option<Vec<Value>> {
        row![object.name(), object.list_at("/webhooks").len(), age(object, now)]
    }
}

/// What an update must keep to: what the stored configuration breaks already may stay broken.
struct Strictness {
    no_side_effects: bool,
    known_version: bool,
    unique_names: bool,
}

impl Strictness {
    fn of(old: Option<&Document>) -> Self {
        let hooks = old.map_or(&[][..], |old| old.list_at("/webhooks"));
        let names: BTreeSet<&str> = hooks.iter().map(|hook| text(hook, "name")).collect();
        Self {
            no_side_effects: hooks.iter().all(|hook| NO_EFFECTS.contains(&text(hook, "sideEffects"))),
            known_version: hooks.iter().all(|hook| texts(hook, "admissionReviewVersions").iter().any(|v| known(v))),
            unique_names: names.len() == hooks.len(),
        }
    }
}

const NO_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MAX_CONDITIONS: usize = 64;

fn known(version: &str) -> bool {
    matches!(version, "v1" | "v1beta1")
}

impl Webhooks {
    fn webhook(&self, hook: &Value, rules: &Strictness, path: &Path) -> Errors {
        let mut errors = fully_qualified(text(hook, "name"), &path.child("name"));
        for (index, rule) in list(hook, "rules").iter().enumerate() {
            errors.extend(rule_errors(rule, &path.child("rules").index(index)));
        }
        let policy = |key: &str, allowed: &[&str]| supported_if_given(hook, key, path, allowed);
        errors.extend(policy("failurePolicy", &["Fail", "Ignore"]));
        errors.extend(policy("matchPolicy", &["Equivalent", "Exact"]));
        let effects = if rules.no_side_effects { &NO_EFFECTS[..] } else { &EFFECTS[..] };
        if get(hook, "sideEffects").is_none() {
            let why = format!("must specify one of {}", effects.join(", "));
            errors.push(Error::required(path.child("sideEffects"), why));
        }
        errors.extend(policy("sideEffects", effects));
        if let Some(seconds) = number(hook, "timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
            let why = "the timeout value must be between 1 and 30 seconds";
            errors.push(Error::invalid(path.child("timeoutSeconds"), seconds, why));
        }
        for key in ["namespaceSelector", "objectSelector"] {
            if let Some(selector) = get(hook, key) {
                errors.extend(label_selector(Some(selector), &path.child(key)));
            }
        }
        if self.mutating {
            errors.extend(policy("reinvocationPolicy", &["IfNeeded", "Never"]));
        }
        errors.extend(client(get(hook, "clientConfig").unwrap_or(&Value::Null), &path.child("clientConfig")));
        errors.extend(conditions(list(hook, "matchConditions"), &path.child("matchConditions")));
        errors
    }
}

fn supported_if_given(hook: &Value, key: &str, path: &Path, allowed: &[&str]) -> Errors {
    match get(hook, key) {
        Some(_) => supported(text(hook, key), &path.child(key), allowed),
        None => Errors::new(),
    }
}

/// A name with at least three parts.
fn fully_qualified(name: &str, path: &Path) -> Errors {
    if name.is_empty() {
        return vec![Error::required(path.clone(), "")];
    }
    let broken = words::subdomain(name);
    match (broken.is_empty(), name.split('.').count()) {
        (false, _) => invalid_each(path, name, broken),
        (true, ..3) => {
            vec![Error::invalid(
                path.clone(),
                name,
                "should be a domain with at least three segments separated by dots",
            )]
        }
        (true, _) => Errors::new(),
    }
}

fn versions(hook: &Value, must_be_known: bool, path: &Path) -> Errors {
    let versions = texts(hook, "admissionReviewVersions");
    if versions.is_empty() {
        return vec![Error::required(path.clone(), "must specify one of v1, v1beta1")];
    }
    let mut errors = Errors::new();
    for (index, version) in versions.iter().enumerate() {
        match versions.iter().position(|v| v == version) == Some(index) {
            true => errors.extend(invalid_each(&path.index(index), *version, words::label_1035(version))),
            false => errors.push(Error::invalid(path.index(index), *version, "duplicate version")),
        }
    }
    if must_be_known && !versions.iter().any(|version| known(version)) {
        errors.push(Error::invalid(path.clone(), json!(versions), "must include at least one of v1, v1beta1"));
    }
    errors
}

/// A list that must not be empty, and holds nothing besides `*`.
fn either_all_or_some(items: &[&str], path: &Path, others: &str) -> Errors {
    let mut errors = Errors::new();
    if items.is_empty() {
        errors.push(Error::required(path.clone(), ""));
    }
    if items.len() > 1 && items.contains(&"*") {
        let why = format!("if '*' is present, must not specify other {others}");
        errors.push(Error::invalid(path.clone(), json!(items), why));
    }
    errors
}

/// A `RuleWithOperations`.
pub(super) fn rule_errors(rule: &Value, path: &Path) -> Errors {
    let operations = texts(rule, "operations");
    let mut errors = either_all_or_some(&operations, &path.child("operations"), "operations");
    for (index, operation) in operations.iter().enumerate() {
        if !OPERATIONS.contains(operation) {
            let path = path.child("operations").index(index);
            errors.push(Error::not_supported(path, *operation, &OPERATIONS));
        }
    }
    errors.extend(either_all_or_some(&texts(rule, "apiGroups"), &path.child("apiGroups"), "API groups"));
    let versions = texts(rule, "apiVersions");
    let at = path.child("apiVersions");
    errors.extend(either_all_or_some(&versions, &at, "API versions"));
    let empty = versions.iter().enumerate().filter(|(_, version)| version.is_empty());
    errors.extend(empty.map(|(index, _)| Error::required(at.index(index), "")));
    errors.extend(resources(&texts(rule, "resources"), &path.child("resources")));
    errors.extend(supported_if_given(rule, "scope", path, &["*", "Cluster", "Namespaced"]));
    errors
}

fn resources(resources: &[&str], path: &Path) -> Errors {
    let mut errors = Errors::new();
    if resources.is_empty() {
        errors.push(Error::required(path.clone(), ""));
    }
    let (mut all_of, mut any_with) = (BTreeSet::new(), BTreeSet::new());
    for (index, named) in resources.iter().enumerate() {
        if named.is_empty() {
            errors.push(Error::required(path.index(index), ""));
        }
        let Some((resource, sub)) = named.split_once('/') else { continue };
        let mut twice = |by: String| {
            let why = format!("if '{by}' is present, must not specify {named}");
            errors.push(Error::invalid(path.index(index), *named, why));
        };
        if all_of.contains(resource) {
            twice(format!("{resource}/*"));
        }
        if any_with.contains(sub) {
            twice(format!("*/{sub}"));
        }
        all_of.extend((sub == "*").then_some(resource));
        any_with.extend((resource == "*").then_some(sub));
    }
    if resources.len() > 1 && resources.contains(&"*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.push(Error::invalid(path.clone(), json!(resources), why));
    }
    let plain = resources.iter().any(|named| !named.contains('/') && *named != "*" && !named.is_empty());
    if plain && resources.contains(&"*") {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(Error::invalid(path.clone(), json!(resources), why));
    }
    errors
}

fn client(config: &Value, path: &Path) -> Errors {
    match (get(config, "url"), get(config, "service")) {
        (Some(_), None) => url(text(config, "url"), &path.child("url")),
        (None, Some(service)) => service_errors(service, &path.child("service")),
        _ => vec![Error::required(path.clone(), "exactly one of url or service is required")],
    }
}

/// A webhook's URL.
pub(super) fn url(url: &str, path: &Path) -> Errors {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let (before, fragment) = tail.split_once('#').unwrap_or((tail, ""));
    let query = before.split_once('?').map_or("", |(_, query)| query);
    let mut errors = Errors::new();
    let mut say = |wrong: bool, value: &str, why: String| {
        if wrong {
            errors.push(Error::invalid(path.clone(), value, why));
        }
    };
    say(scheme != "https", scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    say(host.is_empty(), host, format!("host must be specified{FORM}"));
    say(user.is_some(), user.unwrap_or_default(), "user information is not permitted in the URL".into());
    say(!fragment.is_empty(), fragment, "fragments are not permitted in the URL".into());
    say(!query.is_empty(), query, "query parameters are not permitted in the URL".into());
    errors
}

/// A reference to the service of a webhook.
pub(super) fn service_errors(service: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for key in ["name", "namespace"] {
        if text(service, key).is_empty() {
            errors.push(Error::required(path.child(key), ""));
        }
    }
    let port = number(service, "port").unwrap_or_default();
    let broken = words::port_number(port);
    if !broken.is_empty() {
        let why = format!("port is not valid: {}", broken.join(", "));
        errors.push(Error::invalid(path.child("port"), port, why));
    }
    errors.extend(service_path(text(service, "path"), &path.child("path")));
    errors
}

fn service_path(given: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if matches!(given, "" | "/") {
        return errors;
    }
    if !given.starts_with('/') {
        errors.push(Error::invalid(path.clone(), given, "must start with a '/'"));
    }
    let rest = given.get(1..).unwrap_or_default();
    for (index, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(Error::invalid(path.clone(), given, format!("segment[{index}] may not be empty")));
            continue;
        }
        let broken = words::subdomain(step).into_iter();
        errors.extend(broken.map(|why| Error::invalid(path.clone(), given, format!("segment[{index}]: {why}"))));
    }
    errors
}

/// An expression of a match condition: it compiles, to a bool.
fn expression(expression: &str, path: &Path) -> Option<Error> {
    if expression.is_empty() {
        return Some(Error::required(path.clone(), ""));
    }
    let environment = environment(Options { params: false, authorizer: true });
    let why = Expression::compile(expression, &environment, &[Type::Bool]).program.err()?;
    Some(Error::invalid(path.clone(), expression, why))
}

/// `matchConditions`: their names and expressions.
pub(super) fn conditions(conditions: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    if conditions.len() > MAX_CONDITIONS {
        errors.push(Error::too_many(path.clone(), conditions.len(), MAX_CONDITIONS));
    }
    let mut names = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        errors.extend(expression(text(condition, "expression").trim(), &path.child("expression")));
        let name = text(condition, "name");
        match name {
            "" => errors.push(Error::required(path.child("name"), "")),
            name => {
                errors.extend(invalid_each(&path.child("name"), name, words::qualified_name(name)));
                if !names.insert(name) {
                    errors.push(Error::duplicate(path.child("name"), name));
                }
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::Webhooks;
    use crate::kinds::{Change, Operation, Rules};
    use crate::{Document, time};
    use serde_json::{Value, json};

    fn errors(hooks: &Value, old: Option<&Value>) -> Vec<String> {
        let document = |hooks: &Value| Document::new(json!({"webhooks": hooks})).expect("an object");
        let old = old.map(document);
        let now = time::parse("2024-01-31T12:00:00Z").expect("a time");
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let change = Change { operation, subresource: "", old: old.as_ref(), user: "u", now, version: "v1" };
        Webhooks { mutating: true }.validate(&document(hooks), &change).iter().map(ToString::to_string).collect()
    }

    fn hook() -> Value {
        json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n", "port": 443, "path": "/a/b"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["pods", "*/status"]}]})
    }

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        assert!(errors(&json!([hook()]), None).is_empty());
        let cases = [
            (
                "/name",
                json!("a.b"),
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ),
            (
                "/sideEffects",
                json!("Some"),
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ),
            (
                "/sideEffects",
                Value::Null,
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                "/admissionReviewVersions",
                json!(["v9"]),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
            ),
            (
                "/timeoutSeconds",
                json!(31),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                "/clientConfig",
                json!({}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                "/clientConfig",
                json!({"url": "http://h/x"}),
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
            (
                "/clientConfig",
                json!({"url": "https://u@h/x"}),
                "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
            ),
            (
                "/clientConfig/service/path",
                json!("x//y"),
                "webhooks[0].clientConfig.service.path: Invalid value: \"x//y\": must start with a '/'",
            ),
            (
                "/rules/0/operations",
                json!(["READ"]),
                "webhooks[0].rules[0].operations[0]: Unsupported value: \"READ\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            ),
            (
                "/rules/0/resources",
                json!(["*/*", "pods"]),
                "webhooks[0].rules[0].resources: Invalid value: [\"*/*\",\"pods\"]: if '*/*' is present, must not specify other resources",
            ),
            (
                "/rules/0/resources",
                json!(["pods/*", "pods/status"]),
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status",
            ),
            (
                "/matchConditions",
                json!([{"name": "x", "expression": "request.name"}]),
                "webhooks[0].matchConditions[0].expression: Invalid value: \"request.name\": must evaluate to bool but got string",
            ),
            (
                "/matchConditions",
                json!([{"name": "x", "expression": " "}]),
                "webhooks[0].matchConditions[0].expression: Required value",
            ),
        ];
        for (pointer, value, want) in cases {
            let mut hook = hook();
            match hook.pointer_mut(pointer) {
                Some(found) => *found = value,
                None => hook[&pointer[1..]] = value,
            }
            let got = errors(&json!([hook]), None);
            assert_eq!(got.first().map(String::as_str), Some(want), "{pointer}");
        }
        let twice = errors(&json!([hook(), hook()]), None);
        assert_eq!(twice, ["webhooks[1].name: Duplicate value: \"a.b.c\""]);
        let mut loose = hook();
        loose["sideEffects"] = "Some".into();
        assert!(errors(&json!([loose.clone()]), Some(&json!([loose]))).is_empty(), "as it was before");
    }
}
