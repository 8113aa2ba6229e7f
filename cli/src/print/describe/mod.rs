//! Descriptions, laid out as kubectl lays them out. Pure: the object and what belongs to it in, text out.

mod event;
mod generic;
mod node;
mod pod;
mod pod_template;
mod service;
mod text;
mod volume;
mod workload;

use api::Timestamp;
use serde_json::Value;

use text::Text;

/// What a description may need besides the object.
#[derive(Debug, Default)]
pub(crate) struct Related {
    /// The events about it; `None` where they were not asked for.
    pub(crate) events: Option<Vec<Value>>,
    /// The pods it selects, or those on the node.
    pub(crate) pods: Vec<Value>,
    /// The ReplicaSets of a Deployment.
    pub(crate) replica_sets: Vec<Value>,
    /// The EndpointSlices of a Service.
    pub(crate) endpoint_slices: Vec<Value>,
    /// The Lease of a Node.
    pub(crate) lease: Option<Value>,
}

type Describer = fn(&Value, &Related, Timestamp, &mut Text);

/// To describe a kind: one function, one line here.
const DESCRIBERS: &[(&str, &str, Describer)] = &[
    ("", "ConfigMap", generic::config_map),
    ("", "Namespace", generic::namespace),
    ("", "Node", node::node),
    ("", "Pod", pod::pod),
    ("", "Secret", generic::secret),
    ("", "Service", service::service),
    ("apps", "DaemonSet", workload::daemon_set),
    ("apps", "Deployment", workload::deployment),
    ("apps", "ReplicaSet", workload::replica_set),
    ("apps", "StatefulSet", workload::stateful_set),
    ("batch", "Job", workload::job),
];

/// The description of an object.
pub(crate) fn describe(group: &str, kind: &str, object: &Value, related: &Related, now: Timestamp) -> String {
    let known = DESCRIBERS.iter().find(|(g, k, _)| (*g, *k) == (group, kind));
    let mut text = Text::default();
    known.map_or(generic::anything as Describer, |(_, _, describer)| *describer)(object, related, now, &mut text);
    if let Some(events) = &related.events {
        event::events(events, now, &mut text);
    }
    text.finish()
}

/// The description of a pod template alone.
pub(crate) fn template(template: &Value) -> String {
    let mut text = Text::default();
    pod_template::template(template, &mut text);
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::{Related, describe};
    use api::Timestamp;
    use serde_json::json;

    #[test]
    fn a_pod_is_described_as_kubectl_does() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"a": "b", "c": "d"}},
            "spec": {
                "nodeName": "n1", "serviceAccountName": "default", "priority": 0,
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "hostIP": "1.2.3.4", "qosClass": "BestEffort",
                "startTime": "1970-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "containerID": "x://1", "imageID": "y",
                    "state": {"running": {"startedAt": "1970-01-01T00:00:01Z"}}}],
            },
        });
        let event = json!({"type": "Normal", "reason": "Started", "count": 1, "firstTimestamp": "1969-12-31T23:59:50Z",
            "source": {"component": "kubelet"}, "message": "Started container c"});
        let related = Related { events: Some(vec![event]), ..Related::default() };
        let text = describe("", "Pod", &pod, &related, Timestamp::UNIX_EPOCH);
        expect_test::expect![[r#"
            Name:             web
            Namespace:        default
            Priority:         0
            Service Account:  default
            Node:             n1/1.2.3.4
            Start Time:       Thu, 01 Jan 1970 00:00:00 +0000
            Labels:           a=b
                              c=d
            Annotations:      <none>
            Status:           Running
            IP:               10.0.0.1
            IPs:
              IP:  10.0.0.1
            Containers:
              c:
                Container ID:   x://1
                Image:          i
                Image ID:       y
                Port:           80/TCP
                Host Port:      0/TCP
                State:          Running
                  Started:      Thu, 01 Jan 1970 00:00:01 +0000
                Ready:          True
                Restart Count:  0
                Environment:    <none>
                Mounts:
                  /v from v (ro)
            Conditions:
              Type    Status
              Ready   True 
            Volumes:
              v:
                Type:        EmptyDir (a temporary directory that shares a pod's lifetime)
                Medium:      
                SizeLimit:   <unset>
            QoS Class:       BestEffort
            Node-Selectors:  <none>
            Tolerations:     <none>
            Events:
              Type    Reason   Age   From     Message
              ----    ------   ----  ----     -------
              Normal  Started  10s   kubelet  Started container c
        "#]]
        .assert_eq(&text);
    }
}
