//! What may stand in the kinds of `flowcontrol.apiserver.k8s.io` (`pkg/apis/flowcontrol/validation`).

use serde_json::Value;

use super::super::Change;
use super::super::rule::{Must, Rule, check};
use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::tree::{flag, get, list, number, text, texts};
use crate::validation::invalid_each;
use crate::validation::text::{label, subdomain};

const FLOW_SCHEMA: &[Rule] = &[
    Rule("spec!.distinguisherMethod", Must::Pass(distinguisher)),
    Rule("spec!.priorityLevelConfiguration", Must::Hold(level_name)),
    Rule("spec!.rules[*]", Must::Pass(policy_rule)),
    Rule("spec!.rules[*].subjects[*]", Must::Pass(subject)),
    Rule("spec!.rules[*].resourceRules[*]", Must::Pass(resource_rule)),
    Rule("spec!.rules[*].nonResourceRules[*]", Must::Pass(url_rule)),
];

/// A `FlowSchema`.
pub(super) fn flow_schema(new: &Document, _: &Change<'_>) -> Errors {
    let precedence = new.i64_at("/spec/matchingPrecedence").unwrap_or_default();
    let detail = match precedence {
        ..=0 => Some("must be a positive value"),
        1 if new.name() != "exempt" => Some("only the schema named 'exempt' may have matchingPrecedence 1"),
        10_001.. => Some("must not be greater than 10000"),
        _ => None,
    };
    let path = Path::new("spec").child("matchingPrecedence");
    let mut errors: Errors = detail.map(|detail| Error::invalid(path, precedence, detail)).into_iter().collect();
    errors.extend(check(FLOW_SCHEMA, new));
    errors
}

fn distinguisher(method: &Value, path: &Path) -> Errors {
    let kind = text(method, "type");
    if matches!(kind, "ByNamespace" | "ByUser") {
        return Errors::new();
    }
    let mut error = Error::not_supported(path.child("type"), kind, &["ByNamespace", "ByUser"]);
    error.shown = Some(format!("{{\"Type\":{}}}", Value::from(kind)));
    vec![error]
}

fn level_name(level: &Value, path: &Path) -> Errors {
    let path = path.child("name");
    match text(level, "name") {
        "" => vec![Error::required(path, "must reference a priority level")],
        name => invalid_each(&path, name, subdomain(name)),
    }
}

fn policy_rule(rule: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if list(rule, "subjects").is_empty() {
        errors.push(Error::required(path.child("subjects"), "subjects must contain at least one value"));
    }
    if list(rule, "resourceRules").is_empty() && list(rule, "nonResourceRules").is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(Error::required(path.clone(), detail));
    }
    errors
}

/// A subject has the part that its kind names, and no other.
fn subject(subject: &Value, path: &Path) -> Errors {
    const KINDS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = text(subject, "kind");
    if !KINDS.iter().any(|(known, _)| *known == kind) {
        return vec![Error::not_supported(path.child("kind"), kind, &["Group", "ServiceAccount", "User"])];
    }
    let mut errors = Errors::new();
    for (of, field) in KINDS {
        let at = path.child(field);
        match (of == kind, get(subject, field)) {
            (true, None) => {
                errors.push(Error::required(at, format!("{field} is required when subject kind is '{of}'")));
            }
            (true, Some(part)) if of == "ServiceAccount" => errors.extend(service_account(part, &at)),
            (true, Some(part)) if text(part, "name").is_empty() => errors.push(Error::required(at.child("name"), "")),
            (false, Some(_)) => {
                errors.push(Error::forbidden(at, format!("{field} is forbidden when subject kind is not '{of}'")));
            }
            _ => {}
        }
    }
    errors
}

fn service_account(account: &Value, path: &Path) -> Errors {
    let mut errors = match text(account, "name") {
        "" => vec![Error::required(path.child("name"), "")],
        "*" => Errors::new(),
        name => invalid_each(&path.child("name"), name, subdomain(name)),
    };
    errors.extend(match text(account, "namespace") {
        "" => vec![Error::required(path.child("namespace"), "must specify namespace for service account")],
        namespace => invalid_each(&path.child("namespace"), namespace, label(namespace)),
    });
    errors
}

const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn verbs(rule: &Value, path: &Path) -> Errors {
    let (all, path) = (texts(rule, "verbs"), path.child("verbs"));
    let shown = Value::from(all.clone());
    if all.is_empty() {
        return vec![Error::required(path, "verbs must contain at least one value")];
    }
    if all.contains(&"*") {
        let alone = "if '*' is present, must not specify other verbs";
        return if all.len() > 1 { vec![Error::invalid(path, shown, alone)] } else { Errors::new() };
    }
    if all.iter().all(|verb| VERBS.contains(verb)) {
        return Errors::new();
    }
    vec![Error::not_supported(path, shown, &VERBS)]
}

/// A list that names something, or `*` alone.
fn wild(rule: &Value, field: &str, missing: &str, others: &str, path: &Path) -> Errors {
    let all = texts(rule, field);
    match all.as_slice() {
        [] => vec![Error::required(path.child(field), missing)],
        [_, _, ..] if all.contains(&"*") => {
            let detail = format!("if '*' is present, must not specify other {others}");
            vec![Error::invalid(path.child(field), Value::from(all.clone()), detail)]
        }
        _ => Errors::new(),
    }
}

fn resource_rule(rule: &Value, path: &Path) -> Errors {
    let mut errors = verbs(rule, path);
    let groups = "resource rules must supply at least one api group";
    errors.extend(wild(rule, "apiGroups", groups, "api groups", path));
    errors.extend(wild(rule, "resources", "resource rules must supply at least one resource", "resources", path));
    if list(rule, "namespaces").is_empty() && flag(rule, "clusterScope") {
        return errors;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    errors.extend(wild(rule, "namespaces", missing, "namespaces", path));
    let namespaces = texts(rule, "namespaces");
    if !namespaces.contains(&"*") {
        for (i, namespace) in namespaces.into_iter().enumerate() {
            let told = |m: String| format!("each member of this list must be '*' or a DNS-1123 label; {m}");
            let messages = label(namespace).into_iter().map(told).collect();
            errors.extend(invalid_each(&path.child("namespaces").index(i), namespace, messages));
        }
    }
    errors
}

fn url_rule(rule: &Value, path: &Path) -> Errors {
    let mut errors = verbs(rule, path);
    let missing = "nonResourceURLs must contain at least one value";
    errors.extend(wild(rule, "nonResourceURLs", missing, "non-resource URLs", path));
    let urls = texts(rule, "nonResourceURLs");
    if !urls.contains(&"*") {
        let at = path.child("nonResourceURLs");
        errors.extend(urls.into_iter().enumerate().filter_map(|(i, url)| bad_url(url, at.index(i))));
    }
    errors
}

fn bad_url(url: &str, path: Path) -> Option<Error> {
    let detail = match url {
        "" => "must not be empty",
        "/" => return None,
        _ if !url.starts_with('/') => "must start with slash",
        _ if url.contains(' ') => "must not contain white-space",
        _ if url.contains("//") => "must not contain double slash",
        _ => match url.find('*') {
            Some(at) if at + 1 != url.len() => "wildcard can only do suffix matching",
            Some(_) if !url.ends_with("/*") => "wildcard can only match a path segment",
            _ => return None,
        },
    };
    Some(Error::invalid(path, url, detail))
}

const LEVEL: &[Rule] = &[
    Rule("spec!.type", Must::Choose(&["Exempt", "Limited"])),
    Rule("spec!", Must::Hold(level_kind)),
    Rule("spec!.limited", Must::Pass(limited)),
    Rule("spec!.exempt", Must::Pass(shares)),
];

/// A `PriorityLevelConfiguration`.
pub(super) fn priority_level(new: &Document, _: &Change<'_>) -> Errors {
    let mut errors = Errors::new();
    let kind = new.str_at("/spec/type");
    if (new.name() == "exempt") != (kind == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(Error::invalid(Path::new("spec").child("type"), kind, detail));
    }
    errors.extend(check(LEVEL, new));
    errors
}

fn level_kind(spec: &Value, path: &Path) -> Errors {
    let limited = text(spec, "type") == "Limited";
    match (get(spec, "limited"), get(spec, "exempt")) {
        (Some(_), _) if !limited => vec![Error::forbidden(path.child("limited"), "")],
        (None, _) if limited => vec![Error::required(path.child("limited"), "")],
        (_, Some(_)) if limited => vec![Error::forbidden(path.child("exempt"), "")],
        _ => Errors::new(),
    }
}

fn shares(of: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let bad = |field: &str, low: i64, high: i64| number(of, field).filter(|n| !(low..=high).contains(n));
    if let Some(n) = bad("nominalConcurrencyShares", 0, i64::MAX) {
        errors.push(Error::invalid(path.child("nominalConcurrencyShares"), n, "must be a non-negative integer"));
    }
    if let Some(n) = bad("lendablePercent", 0, 100) {
        errors.push(Error::invalid(path.child("lendablePercent"), n, "must be between 0 and 100, inclusive"));
    }
    if let Some(n) = bad("borrowingLimitPercent", 0, i64::MAX) {
        let detail = "if specified, must be a non-negative integer";
        errors.push(Error::invalid(path.child("borrowingLimitPercent"), n, detail));
    }
    errors
}

fn limited(limited: &Value, path: &Path) -> Errors {
    let mut errors = shares(limited, path);
    let nothing = Value::Null;
    let response = get(limited, "limitResponse").unwrap_or(&nothing);
    let path = path.child("limitResponse");
    match text(response, "type") {
        "Queue" | "Reject" => {}
        "" => errors.push(Error::required(path.child("type"), "")),
        other => errors.push(Error::not_supported(path.child("type"), other, &["Queue", "Reject"])),
    }
    let at = path.child("queuing");
    match (text(response, "type"), get(response, "queuing")) {
        ("Queue", None) => errors.push(Error::required(at, "")),
        ("Queue", Some(queuing)) => errors.extend(queues(queuing, &at)),
        (_, Some(_)) => errors.push(Error::forbidden(at, "")),
        _ => {}
    }
    errors
}

/// More queues than that are refused.
const MAX_QUEUES: i64 = 10_000_000;

fn queues(of: &Value, path: &Path) -> Errors {
    let [queues, hand, length] = ["queues", "handSize", "queueLengthLimit"].map(|f| number(of, f).unwrap_or_default());
    let mut errors = Errors::new();
    let mut say = |bad: bool, field: &str, n: i64, detail: String| {
        if bad {
            errors.push(Error::invalid(path.child(field), n, detail));
        }
    };
    say(length <= 0, "queueLengthLimit", length, "must be positive".into());
    say(queues <= 0, "queues", queues, "must be positive".into());
    say(queues > MAX_QUEUES, "queues", queues, format!("must not be greater than {MAX_QUEUES}"));
    say(hand <= 0, "handSize", hand, "must be positive".into());
    say(hand > queues, "handSize", hand, format!("should not be greater than queues ({queues})"));
    errors
}

#[cfg(test)]
mod tests {
    use super::super::{FLOW_SCHEMA, PRIORITY_LEVEL};
    use crate::Document;
    use crate::kinds::tests::create;
    use serde_json::{Value, json};

    fn with(spec: Value) -> Document {
        Document::new(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap_or_default()
    }

    #[test]
    fn a_rule_says_who_and_what() {
        let rule = |subject: Value, resource: Value| {
            let rules = json!([{"subjects": [subject], "resourceRules": [resource]}]);
            with(json!({"priorityLevelConfiguration": {"name": "l"}, "rules": rules}))
        };
        let user = json!({"kind": "User", "user": {"name": "u"}});
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]});
        assert_eq!(create(&FLOW_SCHEMA, rule(user, pods)), Vec::<String>::new());
        let errors =
            create(&FLOW_SCHEMA, rule(json!({"kind": "Group", "user": {"name": "u"}}), json!({"verbs": ["*", "x"]})));
        assert_eq!(
            errors,
            [
                "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
                "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
                "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"x\"]: if '*' is present, must not specify other verbs",
                "spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
            ]
        );
    }

    #[test]
    fn a_level_has_what_its_type_says() {
        let queue =
            |queues: u32| json!({"limitResponse": {"type": "Queue", "queuing": {"queues": queues, "handSize": 8}}});
        assert_eq!(
            create(&PRIORITY_LEVEL, with(json!({"type": "Limited", "limited": queue(64)}))),
            Vec::<String>::new()
        );
        assert_eq!(
            create(&PRIORITY_LEVEL, with(json!({"type": "Limited", "limited": queue(4)}))),
            ["spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)"]
        );
        assert_eq!(create(&PRIORITY_LEVEL, with(json!({"type": "Limited"}))), ["spec.limited: Required value"]);
    }
}
