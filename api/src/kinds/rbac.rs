//! Role, ClusterRole, RoleBinding, ClusterRoleBinding.

use serde_json::Value;

use super::cell::{self, row};
use super::{Change, NameFormat, Rules};
use crate::field::{Error, ErrorType, Errors, Path};
use crate::tree::{fill, get, items_mut, list, object, text};
use crate::validation::labels::label_selector;
use crate::validation::{dns_subdomain, immutable, invalid_each, supported, text as names};
use crate::{Document, Timestamp};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Rules of Role (`namespaced`) and ClusterRole.
pub(super) struct Role {
    pub namespaced: bool,
}

/// Rules of RoleBinding (`namespaced`) and ClusterRoleBinding.
pub(super) struct Binding {
    pub namespaced: bool,
}

impl Rules for Role {
    fn validate(&self, new: &Document, _change: &Change<'_>) -> Errors {
        let rules = new.list_at("/rules").iter().enumerate();
        let mut errors: Errors = rules
            .clone()
            .flat_map(|(i, rule)| policy_rule(rule, self.namespaced, &Path::new("rules").index(i)))
            .collect();
        for (i, _) in rules.filter(|(_, rule)| list(rule, "verbs").is_empty()) {
            errors.push(Error::required(Path::new("rules").index(i).child("verbs"), ""));
        }
        if let Some(aggregation) = new.at("/aggregationRule").filter(|_| !self.namespaced) {
            errors.extend(aggregation_rule(aggregation));
        }
        errors
    }

    fn name_format(&self) -> NameFormat {
        NameFormat::PathSegment
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

impl Rules for Binding {
    fn default(&self, binding: &mut Document) {
        fill(object(binding.value_mut(), "roleRef"), "apiGroup", GROUP);
        for subject in items_mut(binding.value_mut(), "subjects") {
            if matches!(text(subject, "kind"), "User" | "Group") {
                fill(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let mut errors = role_ref(new.at("/roleRef").unwrap_or(&Value::Null), self.namespaced);
        let mut nameless = Errors::new();
        for (i, subject) in new.list_at("/subjects").iter().enumerate() {
            let found = one_subject(subject, self.namespaced, &Path::new("subjects").index(i));
            let is_name = |error: &Error| error.path.to_string().ends_with("].name");
            let (name, others): (Errors, Errors) =
                found.into_iter().partition(|error| error.kind == ErrorType::Required && is_name(error));
            errors.extend(others);
            nameless.extend(name);
        }
        if let Some(old) = change.old {
            let kept = immutable(new.at("/roleRef"), old.at("/roleRef"), &Path::new("roleRef"));
            errors.extend(kept.into_iter().map(|error| shown_role(error, new)));
        }
        // Upstream finds these with rules of another sort, which come last.
        errors.extend(nameless);
        errors
    }

    fn name_format(&self) -> NameFormat {
        NameFormat::PathSegment
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn cells(&self, binding: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let role = format!("{}/{}", binding.str_at("/roleRef/kind"), binding.str_at("/roleRef/name"));
        row![
            binding.name(),
            role,
            cell::age(binding, now),
            subjects(binding, "User"),
            subjects(binding, "Group"),
            subjects(binding, "ServiceAccount"),
        ]
    }
}

/// An error shows the role as Go's own type has it.
fn shown_role(mut error: Error, binding: &Document) -> Error {
    let field = |field: &str| Value::from(binding.str_at(&format!("/roleRef/{field}")));
    let (group, kind, name) = (field("apiGroup"), field("kind"), field("name"));
    error.shown = Some(format!("{{\"APIGroup\":{group},\"Kind\":{kind},\"Name\":{name}}}"));
    error
}

fn subjects(binding: &Document, kind: &str) -> String {
    let of_kind = binding.list_at("/subjects").iter().filter(|s| text(s, "kind") == kind);
    let shown = of_kind.map(|s| match kind {
        "ServiceAccount" => format!("{}/{}", text(s, "namespace"), text(s, "name")),
        _ => text(s, "name").into(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn policy_rule(rule: &Value, namespaced: bool, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let urls = list(rule, "nonResourceURLs");
    let urls_path = path.child("nonResourceURLs");
    if !urls.is_empty() {
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(Error::invalid(urls_path.clone(), urls.to_vec(), detail));
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|f| !list(rule, f).is_empty()) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(urls_path, urls.to_vec(), detail));
        }
        return errors;
    }
    for (field, what) in [("apiGroups", "api group"), ("resources", "resource")] {
        if list(rule, field).is_empty() {
            let detail = format!("resource rules must supply at least one {what}");
            errors.push(Error::required(path.child(field), detail));
        }
    }
    errors
}

fn aggregation_rule(aggregation: &Value) -> Errors {
    let path = Path::new("aggregationRule").child("clusterRoleSelectors");
    let selectors = list(aggregation, "clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        return vec![Error::required(path, detail)];
    }
    selectors.iter().enumerate().flat_map(|(i, s)| label_selector(Some(s), &path.index(i))).collect()
}

fn role_ref(reference: &Value, namespaced: bool) -> Errors {
    let path = Path::new("roleRef");
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let mut errors = supported(text(reference, "apiGroup"), &path.child("apiGroup"), &[GROUP]);
    errors.extend(supported(text(reference, "kind"), &path.child("kind"), kinds));
    errors.extend(match text(reference, "name") {
        "" => vec![Error::required(path.child("name"), "")],
        name => invalid_each(&path.child("name"), name, names::path_segment(name, false)),
    });
    errors
}

fn one_subject(subject: &Value, namespaced: bool, path: &Path) -> Errors {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    let mut errors = Errors::new();
    if name.is_empty() {
        errors.push(Error::required(path.child("name"), ""));
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.extend(dns_subdomain(name, &path.child("name")));
            }
            if !group.is_empty() {
                errors.push(Error::not_supported(path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && get(subject, "namespace").is_none_or(|n| n == "") {
                errors.push(Error::required(path.child("namespace"), ""));
            }
        }
        "User" | "Group" => errors.extend(supported(group, &path.child("apiGroup"), &[GROUP])),
        kind => {
            let kinds = ["ServiceAccount", "User", "Group"];
            errors.insert(0, Error::not_supported(path.child("kind"), kind, &kinds));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::{Binding, Role};
    use crate::Document;
    use crate::kinds::tests::{create, update};
    use serde_json::{Value, json};

    fn binding(role: &str, subject: Value) -> Document {
        let value = json!({"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [subject]});
        Document::new(value).unwrap_or_default()
    }

    #[test]
    fn bindings_name_a_role_and_subjects_and_keep_the_role() {
        let rules = Binding { namespaced: false };
        let user = json!({"kind": "User", "name": "u"});
        assert_eq!(create(&rules, binding("r", user.clone())), Vec::<String>::new());
        let account = json!({"kind": "ServiceAccount", "name": "a"});
        assert_eq!(create(&rules, binding("r", account)), ["subjects[0].namespace: Required value"]);
        let (_, errors) = update(&rules, "", binding("b", user.clone()), binding("a", user));
        assert!(matches!(errors.as_slice(), [e] if e.ends_with("field is immutable") && e.starts_with("roleRef: ")));
    }

    #[test]
    fn rules_are_about_resources_or_paths() {
        let role = |rule: Value| Document::new(json!({"rules": [rule]})).unwrap_or_default();
        let rules = Role { namespaced: true };
        assert_eq!(
            create(&rules, role(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}))),
            Vec::<String>::new()
        );
        assert_eq!(create(&rules, role(json!({}))).len(), 3);
        assert_eq!(
            create(&rules, role(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}))),
            ["rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"]
        );
    }
}
