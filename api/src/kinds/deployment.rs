//! Deployment.

use serde_json::Value;

use super::cell::{self, containers, count, row};
use super::workload::{amount, at_most, collisions, counts, lasting_template, selected, selector};
use super::{Change, Operation, Rules, pod_spec, workload};
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, get, number, object, replace, text};
use crate::validation::{at_most_100_percent, immutable, int_or_percent, non_negative, same};
use crate::{Document, Timestamp};

/// Rules of `apps/v1 Deployment`.
pub(super) struct Deployment;

impl Rules for Deployment {
    fn default(&self, deployment: &mut Document) {
        let spec = object(deployment.value_mut(), "spec");
        fill(spec, "replicas", 1);
        let strategy = object(spec, "strategy");
        fill(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "progressDeadlineSeconds", 600);
        pod_spec::template(object(spec, "template"));
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        let Some(old) = change.old.filter(|_| change.operation == Operation::Update) else { return };
        match change.subresource {
            "" => annotations_count(new, old),
            "status" => {
                let labels = old.at("/metadata/labels").cloned();
                replace(object(new.value_mut(), "metadata"), "labels", labels);
            }
            _ => {}
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let nothing = Value::Null;
        if change.subresource == "status" {
            let status = |doc: &Document| doc.at("/status").cloned().unwrap_or_default();
            return validate_status(&status(new), &change.old.map(status).unwrap_or_default());
        }
        let mut errors = validate_spec(new.at("/spec").unwrap_or(&nothing), &Path::new("spec"));
        if let Some(old) = change.old {
            let path = Path::new("spec").child("selector");
            errors.extend(immutable(new.at("/spec/selector"), old.at("/spec/selector"), &path));
        }
        errors
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        workload::warnings(new, change, "/spec/template", true)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, deployment: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let (names, images) = containers(deployment, "/spec/template/spec/containers");
        row![
            deployment.name(),
            format!("{}/{}", count(deployment, "/status/readyReplicas"), count(deployment, "/spec/replicas")),
            count(deployment, "/status/updatedReplicas"),
            count(deployment, "/status/availableReplicas"),
            cell::age(deployment, now),
            names,
            images,
            cell::selector(deployment.at("/spec/selector")),
        ]
    }
}

/// A Deployment's generation counts changes of its annotations too.
fn annotations_count(new: &mut Document, old: &Document) {
    let generation = |doc: &Document| doc.i64_at("/metadata/generation").unwrap_or_default();
    let map = |doc: &Document| doc.at("/metadata/annotations").filter(|v| v != &&serde_json::json!({})).cloned();
    let changed = !same(map(new).as_ref(), map(old).as_ref());
    if changed && generation(new) == generation(old) {
        new.set("/metadata/generation", generation(old) + 1);
    }
}

fn validate_spec(spec: &Value, path: &Path) -> Errors {
    let mut errors = counts(spec, &["replicas"], path);
    errors.extend(selector(spec, path, true, "deployment"));
    errors.extend(selected(spec, path, false));
    errors.extend(lasting_template(spec, path, "ReplicaSet"));
    errors.extend(strategy(get(spec, "strategy").unwrap_or(&Value::Null), &path.child("strategy")));
    errors.extend(counts(spec, &["minReadySeconds", "revisionHistoryLimit"], path));
    if let Some(deadline) = number(spec, "progressDeadlineSeconds") {
        let path = path.child("progressDeadlineSeconds");
        errors.extend(non_negative(Some(deadline), &path));
        if deadline <= number(spec, "minReadySeconds").unwrap_or_default() {
            errors.push(Error::invalid(path, deadline, "must be greater than minReadySeconds"));
        }
    }
    errors
}

fn strategy(strategy: &Value, path: &Path) -> Errors {
    let rolling = get(strategy, "rollingUpdate");
    let path_of = || path.child("rollingUpdate");
    match (text(strategy, "type"), rolling) {
        ("Recreate", Some(_)) => {
            vec![Error::forbidden(path_of(), "may not be specified when strategy `type` is 'Recreate'")]
        }
        ("Recreate", None) => Errors::new(),
        ("RollingUpdate", None) => {
            vec![Error::required(path_of(), "this should be defaulted and never be nil")]
        }
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &path_of()),
        _ => vec![Error::not_supported(path.clone(), strategy.clone(), &["Recreate", "RollingUpdate"])],
    }
}

fn rolling_update(rolling: &Value, path: &Path) -> Errors {
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    let unavailable_path = path.child("maxUnavailable");
    let mut errors = int_or_percent(unavailable, &unavailable_path);
    errors.extend(int_or_percent(surge, &path.child("maxSurge")));
    if amount(unavailable) == 0 && amount(surge) == 0 {
        let value = unavailable.cloned().unwrap_or_default();
        errors.push(Error::invalid(unavailable_path.clone(), value, "may not be 0 when `maxSurge` is 0"));
    }
    errors.extend(at_most_100_percent(unavailable, &unavailable_path));
    errors
}

fn validate_status(status: &Value, old: &Value) -> Errors {
    let path = Path::new("status");
    let fields = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    let mut errors = counts(status, &fields, &path);
    errors.extend(at_most(status, &parts, "replicas", &path, "cannot be greater than status.replicas"));
    let detail = "cannot be greater than readyReplicas";
    errors.extend(at_most(status, &["availableReplicas"], "readyReplicas", &path, detail));
    errors.extend(collisions(status, old, &path));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::tests::{create, update};
    use serde_json::json;

    fn deployment(spec: Value) -> Document {
        let mut spec_all = json!({
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]},
            },
        });
        if let (Some(all), Value::Object(some)) = (spec_all.as_object_mut(), spec) {
            all.extend(some);
        }
        Document::new(json!({"metadata": {"name": "d"}, "spec": spec_all})).unwrap_or_default()
    }

    #[test]
    fn a_deployment_selects_its_own_pods() {
        assert_eq!(create(&Deployment, deployment(json!({}))), Vec::<String>::new());
        let cases = [
            (json!({"selector": null}), "spec.selector: Required value"),
            (json!({"selector": {}}), "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
            (
                json!({"selector": {"matchLabels": {"x": "y"}}}),
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (json!({"replicas": -1}), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ];
        for (spec, want) in cases {
            let errors = create(&Deployment, deployment(spec));
            assert!(errors.iter().any(|e| e == want), "{want}: {errors:?}");
        }
    }

    #[test]
    fn annotations_count_as_a_generation_and_the_selector_stays() {
        let old = deployment(json!({}));
        let mut new = deployment(json!({"selector": {"matchLabels": {"a": "c"}}}));
        new.set("/spec/template/metadata/labels/a", "c");
        new.set("/metadata/annotations/x", "y");
        let (new, errors) = update(&Deployment, "", new, old);
        assert_eq!(new.i64_at("/metadata/generation"), Some(1));
        let want = "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable";
        assert_eq!(errors, [want]);
    }
}
