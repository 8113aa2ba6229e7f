//! The status object itself.

use expect_test::expect;
use serde_json::{Value, json};

use crate::pod;
use crate::story::Story;

#[test]
fn the_whole_status_of_a_running_pod() {
    let container = json!({"name": "web", "resources": {"requests": {"cpu": "1"}}, "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]});
    let story = Story::new(pod(json!({"containers": [container]}))).running();
    let text = serde_json::to_string_pretty(&story.status()).unwrap();
    expect![[r#"
        {
          "conditions": [
            {
              "lastTransitionTime": "2026-01-01T00:00:00Z",
              "observedGeneration": 1,
              "status": "True",
              "type": "PodReadyToStartContainers"
            },
            {
              "lastTransitionTime": "2026-01-01T00:00:00Z",
              "observedGeneration": 1,
              "status": "True",
              "type": "Initialized"
            },
            {
              "lastTransitionTime": "2026-01-01T00:00:00Z",
              "observedGeneration": 1,
              "status": "True",
              "type": "Ready"
            },
            {
              "lastTransitionTime": "2026-01-01T00:00:00Z",
              "observedGeneration": 1,
              "status": "True",
              "type": "ContainersReady"
            },
            {
              "lastTransitionTime": "2026-01-01T00:00:00Z",
              "observedGeneration": 1,
              "status": "True",
              "type": "PodScheduled"
            }
          ],
          "containerStatuses": [
            {
              "allocatedResources": {
                "cpu": "1"
              },
              "containerID": "trimtab://u1_web-0",
              "image": "docker.io/library/busybox:latest",
              "imageID": "busybox@sha256:1",
              "lastState": {},
              "name": "web",
              "ready": true,
              "resources": {
                "requests": {
                  "cpu": "1"
                }
              },
              "restartCount": 0,
              "started": true,
              "state": {
                "running": {
                  "startedAt": "2026-01-01T00:00:00Z"
                }
              },
              "volumeMounts": [
                {
                  "mountPath": "/v",
                  "name": "v",
                  "readOnly": true,
                  "recursiveReadOnly": "Disabled"
                }
              ]
            }
          ],
          "hostIP": "10.0.0.1",
          "hostIPs": [
            {
              "ip": "10.0.0.1"
            }
          ],
          "observedGeneration": 1,
          "phase": "Running",
          "podIP": "10.1.0.2",
          "podIPs": [
            {
              "ip": "10.1.0.2"
            }
          ],
          "qosClass": "Burstable",
          "startTime": "2026-01-01T00:00:00Z"
        }"#]]
    .assert_eq(&text);
}

#[test]
fn a_rejected_pod_has_no_more_than_its_reason() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "web"}]})));
    let message = "Node didn't have enough resource: cpu, requested: 1, used: 0, capacity: 0".into();
    story.seen.verdict = Some(node_plan::observed::Verdict { reason: "OutOfcpu".into(), message, rejected: true });
    let text = serde_json::to_string(&story.status()).unwrap();
    expect![[r#"{"message":"Pod was rejected: Node didn't have enough resource: cpu, requested: 1, used: 0, capacity: 0","observedGeneration":1,"phase":"Failed","qosClass":"BestEffort","reason":"OutOfcpu","startTime":"2026-01-01T00:00:00Z"}"#]].assert_eq(&text);
}

#[test]
fn conditions_of_others_and_times_of_unchanged_ones_are_kept() {
    let mut story =
        Story::new(pod(json!({"containers": [{"name": "web"}], "readinessGates": [{"conditionType": "x/y"}]})));
    story.settle();
    let mut status = serde_json::to_value(story.status()).unwrap();
    status["conditions"].as_array_mut().unwrap().push(json!({"type": "x/y", "status": "False"}));
    story.pod.status = serde_json::from_value(status).unwrap();
    story.pass(60);
    let times = |v: Value| {
        v["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| format!("{} {} {}", c["type"], c["status"], c["lastTransitionTime"]))
            .collect::<Vec<_>>()
            .join("\n")
    };
    expect![[r#"
        "x/y" "False" null
        "PodReadyToStartContainers" "True" "2026-01-01T00:00:00Z"
        "Initialized" "True" "2026-01-01T00:00:00Z"
        "Ready" "False" "2026-01-01T00:00:00Z"
        "ContainersReady" "True" "2026-01-01T00:00:00Z"
        "PodScheduled" "True" "2026-01-01T00:00:00Z""#]]
    .assert_eq(&times(serde_json::to_value(story.status()).unwrap()));
}
