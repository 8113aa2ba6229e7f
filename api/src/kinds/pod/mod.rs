//! Pod.

mod cells;
mod prepare;
mod qos;
mod validate;

pub use qos::class as qos_class;

use serde_json::Value;

use super::{Change, Rules, pod_spec};
use crate::field::Errors;
use crate::tree::{fill, replace, set, text};
use crate::{Document, Timestamp};

/// Rules of `v1 Pod`.
pub(super) struct Pod;

impl Rules for Pod {
    fn default(&self, pod: &mut Document) {
        if let Some(spec) = pod.at_mut("/spec") {
            pod_spec::pod_spec(spec);
            pod_spec::pod(spec);
        }
        if let Some(status) = pod.at_mut("/status") {
            addresses(status);
        }
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        prepare::prepare(new, change);
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        validate::validate(new, change)
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        validate::warnings(new, change)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn index_field(&self) -> Option<&'static str> {
        Some("spec.nodeName")
    }

    fn selectable(&self, pod: &Document) -> Vec<(&'static str, String)> {
        cells::selectable(pod)
    }

    fn row_conditions(&self, pod: &Document) -> Vec<Value> {
        cells::conditions(pod)
    }

    fn cells(&self, pod: &Document, now: Timestamp) -> Option<Vec<Value>> {
        cells::cells(pod, now)
    }
}

/// Keeps `podIP` and `podIPs` in step; the singular one wins.
fn addresses(status: &mut Value) {
    let single = text(status, "podIP").to_owned();
    let first = status.pointer("/podIPs/0/ip").and_then(Value::as_str).unwrap_or_default().to_owned();
    if single.is_empty() && !first.is_empty() {
        fill(status, "podIP", first);
    } else if !single.is_empty() && first != single {
        set(status, "podIPs", serde_json::json!([{"ip": single}]));
    } else if single.is_empty() {
        replace(status, "podIP", None);
    }
}

#[cfg(test)]
mod tests {
    use super::Pod;
    use crate::Document;
    use crate::kinds::tests::{cells, create, created, update};
    use serde_json::{Value, json};

    fn pod(container: Value) -> Document {
        let mut all = json!({"name": "c", "image": "i", "resources": {}});
        if let (Some(all), Value::Object(some)) = (all.as_object_mut(), container) {
            all.extend(some);
        }
        Document::new(json!({"metadata": {"name": "p"}, "spec": {"containers": [all]}})).unwrap_or_default()
    }

    #[test]
    fn a_new_pod_is_pending_with_its_class() {
        let (pod, errors) = created(&Pod, pod(json!({"resources": {"limits": {"cpu": "1"}}})));
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(pod.at("/status"), Some(&json!({"phase": "Pending", "qosClass": "Burstable"})));
        assert_eq!(pod.at("/spec/containers/0/resources/requests"), Some(&json!({"cpu": "1"})));
    }

    #[test]
    fn what_users_get_wrong_is_named() {
        let path = "spec.containers[0]";
        let cases = [
            (json!({"image": ""}), format!("{path}.image: Required value")),
            (json!({"ports": [{"containerPort": 0}]}), format!("{path}.ports[0].containerPort: Required value")),
            (
                json!({"ports": [{"containerPort": 99999}]}),
                format!("{path}.ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive"),
            ),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
                format!("{path}.volumeMounts[0].name: Not found: \"v\""),
            ),
            (
                json!({"livenessProbe": {"successThreshold": 2, "tcpSocket": {"port": 1}}}),
                format!("{path}.livenessProbe.successThreshold: Invalid value: 2: must be 1"),
            ),
            (
                json!({"readinessProbe": {}}),
                format!("{path}.readinessProbe: Required value: must specify a handler type"),
            ),
            (
                json!({"imagePullPolicy": "Sometimes"}),
                format!(
                    "{path}.imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
                     \"IfNotPresent\", \"Never\""
                ),
            ),
            (
                json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m"}}}]}),
                format!("{path}.env[0].valueFrom.configMapKeyRef.key: Required value"),
            ),
            (
                json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.restartPolicy"}}}]}),
                format!(
                    "{path}.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.restartPolicy\": supported \
                     values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \
                     \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \
                     \"status.podIPs\""
                ),
            ),
        ];
        for (container, want) in cases {
            assert_eq!(create(&Pod, pod(container)), [want]);
        }
    }

    #[test]
    fn only_images_and_a_few_fields_may_change() {
        let old = pod(json!({}));
        let (_, errors) = update(&Pod, "", pod(json!({"image": "j"})), old.clone());
        // The pull policy follows the image only when the pod is made.
        assert_eq!(errors, Vec::<String>::new());
        let (_, errors) = update(&Pod, "", pod(json!({"command": ["x"]})), old);
        assert_eq!(errors.len(), 1);
        assert!(errors.iter().all(|e| e.starts_with("spec: Forbidden: pod updates may not change fields other than")));
    }

    #[test]
    fn a_row_says_what_the_pod_is_doing() {
        let spec = json!({
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "c"}],
        });
        let ran = json!({"name": "c", "ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "1969-12-31T23:59:55Z"}}});
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
        let side = json!({"name": "s", "started": true, "ready": true, "restartCount": 1});
        let cases = [
            (json!({"phase": "Pending"}), ["0/2", "Pending", "0"]),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
                ["0/2", "Init:0/2", "0"],
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                ["0/2", "Init:CrashLoopBackOff", "3"],
            ),
            (
                json!({"phase": "Running", "initContainerStatuses": [done, side], "containerStatuses": [ran]}),
                ["2/2", "Running", "3 (5s ago)"],
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3}}}]}),
                ["0/2", "ExitCode:3", "0"],
            ),
        ];
        for (status, want) in cases {
            let object = json!({"metadata": {"name": "p"}, "spec": spec.clone(), "status": status});
            let row = cells(&Pod, object);
            assert_eq!(row.get(1..4).unwrap_or_default(), want, "{row:?}");
        }
    }
}
