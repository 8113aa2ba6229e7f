//! What the server says of a ValidatingAdmissionPolicy in its status: that it has seen it, and what its expressions get
//! wrong about the kinds it concerns (`pkg/controller/validatingadmissionpolicystatus`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::cel::type_check::warnings;
use api::cel::{Type, type_of_kind};
use api::{Document, GroupResource, GroupVersion, GroupVersionKind};
use serde_json::{Value, json};

use crate::cache::Kind;
use crate::core::Core;
use crate::perform::internal_apply;
use crate::rows::Rows;

/// The manager of the status (upstream's `ControllerName`).
const MANAGER: &str = "validatingadmissionpolicy-status";
/// The most kinds of one rule that are looked at.
const MAX_KINDS: usize = 10;
/// A status that could not be written is tried again after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);

fn policies() -> GroupResource {
    GroupResource::new("admissionregistration.k8s.io", "validatingadmissionpolicies")
}

/// Follows the policies until the server stops.
pub(crate) fn start(core: &Core) {
    if let Some(kind) = core.kind(&policies()) {
        core.tasks.spawn(follow(core.clone(), kind));
    }
}

async fn follow(core: Core, kind: Arc<Kind>) {
    let (mut changed, mut stop) = (kind.subscribe(), core.stop.subscribe());
    loop {
        changed.borrow_and_update();
        let failed = !write_all(&core, &kind).await;
        tokio::select! {
            change = changed.changed() => if change.is_err() { return },
            () = tokio::time::sleep(RETRY_AFTER), if failed => {}
            () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
        }
    }
}

async fn write_all(core: &Core, kind: &Kind) -> bool {
    let rows = core.registry.current();
    let Some(row) = rows.get(&policies()) else { return true };
    let mut all_written = true;
    for item in kind.list(&kind.prefix).0 {
        let Some(status) = status(&item.document(), &rows) else { continue };
        match internal_apply(core, row, "status", &status, MANAGER).await {
            Err(error) if error.code != 404 => {
                tracing::warn!(%error, policy = %item.name, "the status of a policy could not be written");
                all_written = false;
            }
            _ => {}
        }
    }
    all_written
}

/// What is to be applied to a policy's status; `None` where it was seen as it is now.
fn status(policy: &Document, rows: &Rows) -> Option<Document> {
    let generation = policy.i64_at("/metadata/generation").unwrap_or_default();
    if generation <= policy.i64_at("/status/observedGeneration").unwrap_or_default() {
        return None;
    }
    let found = warnings(policy, &kinds(policy, rows), params(policy, rows).as_ref());
    let found: Vec<Value> = found.iter().map(|w| json!({"fieldRef": w.field, "warning": w.text})).collect();
    let checked = if found.is_empty() { json!({}) } else { json!({"expressionWarnings": found}) };
    Document::new(
        json!({"apiVersion": policy.api_version(), "kind": policy.kind(), "metadata": {"name": policy.name()},
        "status": {"observedGeneration": generation, "typeChecking": checked}}),
    )
}

/// The kinds that a policy names one by one, in order.
fn kinds(policy: &Document, rows: &Rows) -> Vec<(GroupVersionKind, Type)> {
    let mut found: BTreeMap<(String, String, String), Type> = BTreeMap::new();
    for rule in policy.list_at("/spec/matchConstraints/resourceRules") {
        let strings = |key: &str| {
            let listed = rule.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let mut listed: Vec<&str> = listed.collect();
            listed.sort_unstable();
            listed
        };
        let (groups, versions, mut plurals) = (strings("apiGroups"), strings("apiVersions"), strings("resources"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        plurals.retain(|plural| !plural.contains(['*', '/']));
        let each = groups.iter().flat_map(|group| versions.iter().map(move |version| (group, version)));
        let each = each.flat_map(|(group, version)| plurals.iter().map(move |plural| (group, version, plural)));
        let known = each.filter_map(|(group, version, plural)| {
            let row = rows.get(&GroupResource::new(group, plural))?;
            Some((row, row.version(version)?))
        });
        let mut count = 0;
        for (row, version) in known.take(MAX_KINDS) {
            count += 1;
            let GroupVersionKind { group, version: name, kind } = row.kind_in(version);
            found.entry((group, name, kind)).or_insert_with(|| type_of_kind(&version.schema));
        }
        if count == MAX_KINDS {
            break;
        }
    }
    let named = |((group, version, kind), of)| (GroupVersionKind { group, version, kind }, of);
    found.into_iter().map(named).collect()
}

fn params(policy: &Document, rows: &Rows) -> Option<Type> {
    let wanted = GroupVersion::parse(policy.str_at("/spec/paramKind/apiVersion"))?;
    let kind = policy.str_at("/spec/paramKind/kind");
    let mut named = rows.iter().filter(|row| row.group == wanted.group && row.kind == kind);
    named.find_map(|row| Some(type_of_kind(&row.version(&wanted.version)?.schema)))
}

#[cfg(test)]
mod tests {
    use super::status;
    use crate::rows::{Rows, built_in};
    use api::Document;
    use serde_json::{Value, json};

    fn written(rules: Value, expression: &str, more: Value) -> Option<Value> {
        let spec = json!({"matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": expression, "messageExpression": "string(object.metadata.name)"}]});
        let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "p", "generation": 2}, "spec": spec, "status": {"observedGeneration": 1}});
        let policy = api::patch::merge(&Document::new(policy).expect("an object"), &more);
        Some(status(&policy, &Rows::new(built_in(), 0))?.at("/status").cloned().unwrap_or_default())
    }

    fn warned(rules: Value, expression: &str, more: Value) -> Vec<String> {
        let status = written(rules, expression, more).expect("a status");
        assert_eq!(status["observedGeneration"], 2);
        let listed = status["typeChecking"]["expressionWarnings"].as_array().cloned().unwrap_or_default();
        let text = |w: &Value, key: &str| w[key].as_str().unwrap_or_default().to_owned();
        listed.iter().map(|w| format!("{} {}", text(w, "fieldRef"), text(w, "warning"))).collect()
    }

    fn rule(group: &str, version: &str, resources: &[&str]) -> Value {
        json!({"apiGroups": [group], "apiVersions": [version], "operations": ["*"], "resources": resources})
    }

    #[test]
    fn expressions_are_checked_against_the_kinds_they_concern() {
        let deployments = || json!([rule("apps", "v1", &["deployments"])]);
        let fine = "object.spec.replicas > 1 && object.spec.template.spec.containers.all(c, has(c.resources.limits) && \
                    c.resources.limits['cpu'] == '1') && object.spec.strategy.rollingUpdate.maxSurge == 1 && \
                    object.metadata.creationTimestamp < timestamp('2024-01-01T00:00:00Z') && oldObject == null";
        assert_eq!(warned(deployments(), fine, json!({})), [""; 0]);
        let want = "spec.validations[0].expression apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replica'\n \
                    | object.spec.replica > 1\n | ...........^\n";
        assert_eq!(warned(deployments(), "object.spec.replica > 1", json!({})), [want]);
        let variables = json!({"spec": {"variables": [{"name": "n", "expression": "object.spec.replicas"}]}});
        let wrong = warned(deployments(), "variables.n == 'x'", variables);
        assert!(wrong[0].contains("found no matching overload for '_==_' applied to '(int, string)'"), "{wrong:?}");
        let two =
            warned(json!([rule("apps", "v1", &["deployments", "replicasets", "*/scale"])]), "object.x == 1", json!({}));
        let want = ["apps/v1, Kind=Deployment: ERROR", "\n\napps/v1, Kind=ReplicaSet: ERROR"];
        assert!(want.iter().all(|text| two[0].contains(text)), "{two:?}");
        assert_eq!(
            warned(json!([rule("*", "v1", &["deployments"])]), "object.x == 1", json!({})),
            [""; 0],
            "who knows"
        );
    }

    #[test]
    fn parameters_are_typed_and_what_was_seen_is_left_alone() {
        let maps = || json!([rule("", "v1", &["configmaps"])]);
        let params = json!({"spec": {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}});
        assert_eq!(warned(maps(), "params.data['x'] == object.data['x']", params.clone()), [""; 0]);
        let wrong = warned(maps(), "params.datum == null", params);
        assert!(
            wrong[0].starts_with("spec.validations[0].expression /v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined")
        );
        assert_eq!(written(maps(), "true", json!({"status": {"observedGeneration": 2}})), None);
    }
}
