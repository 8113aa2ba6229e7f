//! What a default object lacks (`k8s.io/component-helpers/auth/rbac/reconciliation`).

use api::{Document, Timestamp};
use serde_json::Value;

use crate::authz::rule::{rules, uncovered};
use crate::identity::front_proxy;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Gathers the rules of the roles that have an aggregationRule: those of the matching roles, in order of their names.
pub(super) fn aggregate(all: &mut [Document]) {
    let is_role = |object: &&Document| object.kind() == "ClusterRole";
    let mut roles: Vec<Document> = all.iter().filter(is_role).cloned().collect();
    roles.sort_by(|a, b| a.name().cmp(b.name()));
    // Two rounds are enough: view into edit, edit into admin; roles of a round see those of the round before.
    for _ in 0..3 {
        let before = roles.clone();
        for role in &mut roles {
            if role.at("/aggregationRule").is_some() {
                let gathered = gathered(role, &before);
                role.set("/rules", gathered);
            }
        }
    }
    for object in all.iter_mut().filter(|object| object.at("/aggregationRule").is_some()) {
        if let Some(role) = roles.iter().find(|role| role.name() == object.name()) {
            *object = role.clone();
        }
    }
}

fn gathered(role: &Document, from: &[Document]) -> Vec<Value> {
    let mut rules: Vec<Value> = Vec::new();
    for selector in role.list_at("/aggregationRule/clusterRoleSelectors") {
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        let matches = |other: &Document| {
            let own = other.at("/metadata/labels");
            labels.into_iter().flatten().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
        };
        for other in from.iter().filter(|other| other.name() != role.name() && matches(other)) {
            for rule in other.list_at("/rules") {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

/// The live object with what it lacks; `None` where it lacks nothing.
pub(super) fn mend(live: &Document, wanted: &Document, now: Timestamp) -> Option<Document> {
    let mut mended = live.clone();
    match wanted.kind() {
        "ClusterRole" | "Role" if live.annotation(AUTOUPDATE) != Some("false") => role(&mut mended, wanted),
        "ClusterRoleBinding" | "RoleBinding" if live.annotation(AUTOUPDATE) != Some("false") => {
            subjects(&mut mended, wanted);
        }
        "ConfigMap" => mended.set("/data", front_proxy::combined(live, wanted, now.as_second())),
        "Endpoints" => mended.set("/subsets", wanted.at("/subsets").cloned().unwrap_or_default()),
        "EndpointSlice" => {
            mended.set("/endpoints", wanted.at("/endpoints").cloned().unwrap_or_default());
            mended.set("/ports", wanted.at("/ports").cloned().unwrap_or_default());
        }
        _ => {}
    }
    (mended != *live).then_some(mended)
}

fn role(mended: &mut Document, wanted: &Document) {
    // A controller keeps the rules of aggregated roles.
    if wanted.at("/aggregationRule").is_some() && mended.at("/aggregationRule").is_some() {
        return;
    }
    let missing = uncovered(&rules(mended), &rules(wanted));
    if missing.is_empty() {
        return;
    }
    let mut all: Vec<Value> = mended.list_at("/rules").to_vec();
    all.extend(missing.iter().map(|rule| match rule.non_resource_urls.is_empty() {
        true => rule.resource_info(),
        false => rule.path_info(),
    }));
    mended.set("/rules", all);
}

fn subjects(mended: &mut Document, wanted: &Document) {
    let mut all: Vec<Value> = mended.list_at("/subjects").to_vec();
    let id = |subject: &Value| {
        ["kind", "name", "namespace"].map(|key| subject.get(key).and_then(Value::as_str).unwrap_or_default().to_owned())
    };
    for subject in wanted.list_at("/subjects") {
        if !all.iter().any(|own| id(own) == id(subject)) {
            all.push(subject.clone());
        }
    }
    if all.len() != mended.list_at("/subjects").len() {
        mended.set("/subjects", all);
    }
}

#[cfg(test)]
mod tests {
    use api::{Document, Timestamp};
    use serde_json::{Value, json};

    fn mend(live: &Document, wanted: &Document) -> Option<Document> {
        super::mend(live, wanted, Timestamp::UNIX_EPOCH)
    }

    fn role(rules: Value, autoupdate: &str) -> Document {
        let annotations = json!({"rbac.authorization.kubernetes.io/autoupdate": autoupdate});
        let object =
            json!({"kind": "ClusterRole", "metadata": {"name": "a", "annotations": annotations}, "rules": rules});
        Document::new(object).unwrap()
    }

    #[test]
    fn lost_rules_come_back_and_added_ones_stay() {
        let wanted = role(json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]), "true");
        let changed = json!([{"verbs": ["get", "watch"], "apiGroups": [""], "resources": ["pods"]}]);
        let mended = mend(&role(changed.clone(), "true"), &wanted).unwrap();
        let lost = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]});
        assert_eq!(mended.at("/rules"), Some(&json!([changed[0], lost])));
        assert_eq!(mend(&role(changed, "false"), &wanted), None);
        assert_eq!(mend(&wanted, &wanted), None);
    }
}
