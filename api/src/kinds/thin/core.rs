//! What may stand in the plainer kinds of the core group, `apps` and `node.k8s.io` (`pkg/apis/core/validation`).

use serde_json::Value;

use super::super::rule::{Must, Rule, check, keep};
use super::super::workload::{counts, lasting_template};
use super::super::{Change, pod_spec};
use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, map, text};
use crate::validation::invalid_each;
use crate::validation::labels::labels;
use crate::validation::text::{label, qualified_name};
use crate::{Document, Quantity};

/// A `ReplicationController`.
pub(super) fn replication_controller(new: &Document, _: &Change<'_>) -> Errors {
    let (spec, path) = (new.at("/spec").unwrap_or(&Value::Null), Path::new("spec"));
    let mut errors = counts(spec, &["minReadySeconds", "replicas"], &path);
    let selector: Vec<(&String, &Value)> = map(get(spec, "selector")).collect();
    if selector.is_empty() {
        errors.push(Error::required(path.child("selector"), ""));
    }
    let Some(template) = get(spec, "template") else {
        errors.push(Error::required(path.child("template"), ""));
        return errors;
    };
    let given = template.pointer("/metadata/labels");
    let matches = selector.iter().all(|(key, value)| given.and_then(|l| l.get(key.as_str())) == Some(*value));
    if !selector.is_empty() && !matches {
        let path = path.child("template").child("metadata").child("labels");
        let detail = "`selector` does not match template `labels`";
        errors.push(Error::invalid(path, given.cloned().unwrap_or_default(), detail));
    }
    errors.extend(lasting_template(spec, &path, "ReplicationController"));
    errors
}

/// A `PodTemplate`.
pub(super) fn pod_template(new: &Document, _: &Change<'_>) -> Errors {
    pod_spec::validate_template(new.at("/template").unwrap_or(&Value::Null), &Path::new("template"))
}

/// A `ControllerRevision`: its data stays.
pub(super) fn controller_revision(new: &Document, change: &Change<'_>) -> Errors {
    let rules = [
        Rule("data", Must::Be("data is mandatory")),
        Rule("revision", Must::AtLeast(0, "must be greater than or equal to 0")),
    ];
    let mut errors = check(&rules, new);
    errors.extend(keep(&["data"], true, new, change));
    errors
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// A `ResourceQuota`: its scopes stay.
pub(super) fn resource_quota(new: &Document, change: &Change<'_>) -> Errors {
    let rules = [
        Rule("spec!.hard", Must::Pass(hard)),
        Rule("spec!.scopes[*]", Must::Pass(scope)),
        Rule("spec!.scopeSelector", Must::Pass(scope_selector)),
    ];
    let mut errors = check(&rules, new);
    errors.extend(keep(&["spec.scopes"], true, new, change));
    errors
}

fn hard(hard: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (name, value) in map(Some(hard)) {
        let path = path.key(name);
        errors.extend(invalid_each(&path, name.as_str(), qualified_name(name)));
        let shown = value.as_str().unwrap_or_default();
        if Quantity::parse(shown).is_ok_and(|q| q.milli_value() < 0) {
            errors.push(Error::invalid(path, shown, "must be greater than or equal to 0"));
        }
    }
    errors
}

fn scope(scope: &Value, path: &Path) -> Errors {
    let known = scope.as_str().is_some_and(|scope| SCOPES.contains(&scope));
    // Upstream's path is that of the list.
    let path = Path::new(path.to_string().split('[').next().unwrap_or_default());
    if known { Errors::new() } else { vec![Error::invalid(path, scope.clone(), "unsupported scope")] }
}

fn scope_selector(selector: &Value, path: &Path) -> Errors {
    let path = path.child("matchExpressions");
    let mut errors = Errors::new();
    for expression in list(selector, "matchExpressions") {
        let [name, operator] = ["scopeName", "operator"].map(|field| text(expression, field));
        if !SCOPES.contains(&name) {
            errors.push(Error::invalid(path.child("scopeName"), name, "unsupported scope"));
        }
        let only_exists = SCOPES.contains(&name) && !matches!(name, "PriorityClass" | "VolumeAttributesClass");
        if only_exists && operator != "Exists" {
            errors.push(Error::invalid(path.child("operator"), operator, ONLY_EXISTS));
        }
        let values = list(expression, "values");
        let at = path.child("values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(Error::required(at, detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(Error::invalid(at, values.to_vec(), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(Error::invalid(path.child("operator"), other, "not a valid selector operator")),
        }
    }
    errors
}

const ONLY_EXISTS: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
    ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
    ResourceQuotaScopeCrossNamespacePodAffinity";

/// A `RuntimeClass`: its handler stays.
pub(super) fn runtime_class(new: &Document, change: &Change<'_>) -> Errors {
    let rules = [
        Rule("handler", Must::Name(label)),
        Rule("scheduling.nodeSelector", Must::Pass(|of, path| labels(Some(of), path))),
        Rule(
            "scheduling",
            Must::Pass(|of, path| pod_spec::tolerations(list(of, "tolerations"), &path.child("tolerations"))),
        ),
    ];
    let mut errors = check(&rules, new);
    errors.extend(keep(&["handler"], false, new, change));
    errors
}

#[cfg(test)]
mod tests {
    use super::super::{CONTROLLER_REVISION, RESOURCE_QUOTA};
    use crate::Document;
    use crate::kinds::tests::{create, update};
    use serde_json::{Value, json};

    fn object(value: Value) -> Document {
        Document::new(value).unwrap_or_default()
    }

    #[test]
    fn a_quota_names_known_scopes_and_keeps_them() {
        let quota = |scopes: Value| object(json!({"spec": {"hard": {"pods": "1"}, "scopes": scopes}}));
        assert_eq!(create(&RESOURCE_QUOTA, quota(json!(["BestEffort"]))), Vec::<String>::new());
        assert_eq!(
            create(&RESOURCE_QUOTA, quota(json!(["X"]))),
            ["spec.scopes: Invalid value: \"X\": unsupported scope"]
        );
        let (_, errors) = update(&RESOURCE_QUOTA, "", quota(json!(["BestEffort"])), quota(json!([])));
        assert_eq!(errors, ["spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"]);
    }

    #[test]
    fn a_revision_keeps_its_data() {
        let revision = |data: Value| object(json!({"revision": 1, "data": data}));
        let (_, errors) = update(&CONTROLLER_REVISION, "", revision(json!({"a": 1})), revision(json!({"a": 2})));
        assert_eq!(errors, ["data: Invalid value: {\"a\":1}: field is immutable"]);
    }
}
