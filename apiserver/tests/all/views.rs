//! Resources that are one another in other words: events of two groups and autoscalers of two versions are one storage.

use http::Method;
use serde_json::{Value, json};
use store::memory::Memory;

use super::{ask, line, send, server};

const CORE: &str = "/api/v1/namespaces/a/events";
const GROUP: &str = "/apis/events.k8s.io/v1/namespaces/a/events";
const V1: &str = "/apis/autoscaling/v1/namespaces/a/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/a/horizontalpodautoscalers";

fn core(name: &str) -> Value {
    let about = json!({"kind": "Pod", "namespace": "a", "name": "p", "apiVersion": "v1"});
    json!({"metadata": {"name": name}, "involvedObject": about, "reason": "Seen", "message": "it was", "type": "Normal",
        "count": 3, "source": {"component": "eye", "host": "n1"}, "lastTimestamp": "2026-01-02T03:04:05Z"})
}

fn grouped(name: &str) -> Value {
    let about = json!({"kind": "Secret", "namespace": "a", "name": "s", "apiVersion": "v1"});
    json!({"metadata": {"name": name}, "regarding": about, "reason": "Seen", "note": "it is", "type": "Warning",
        "action": "Look", "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "example.com/eye",
        "reportingInstance": "eye-1", "series": {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z"}})
}

#[tokio::test]
async fn events_of_both_groups_are_one_storage() {
    let server = server(Memory::new()).await;
    let mut watches = Vec::new();
    for path in [CORE, GROUP] {
        let path = format!("{path}?watch=1&resourceVersion=0");
        watches.push(send(&server, "system:masters", Method::GET, &path, None).await.into_body());
    }
    assert_eq!(ask(&server, Method::POST, CORE, Some(core("c"))).await.0, 201);
    let (code, made) = ask(&server, Method::POST, GROUP, Some(grouped("g"))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(ask(&server, Method::POST, GROUP, Some(grouped("c"))).await.0, 409, "the name is taken");

    let (_, shown) = ask(&server, Method::GET, &format!("{GROUP}/c"), None).await;
    let fields = ["note", "regarding", "deprecatedCount", "deprecatedSource", "deprecatedLastTimestamp", "eventTime"];
    let words = json!(["it was", core("c")["involvedObject"], 3, {"component": "eye", "host": "n1"}, "2026-01-02T03:04:05Z", null]);
    assert_eq!(json!(fields.map(|field| &shown[field])), words);
    assert_eq!(
        (&shown["message"], &shown["involvedObject"], &shown["count"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let (_, shown) = ask(&server, Method::GET, &format!("{CORE}/g"), None).await;
    let fields = ["message", "involvedObject", "reportingComponent", "reportingInstance", "action", "series"];
    let new = grouped("g");
    let words = json!(["it is", new["regarding"], "example.com/eye", "eye-1", "Look", new["series"]]);
    assert_eq!(json!(fields.map(|field| &shown[field])), words);

    for (path, kind, version) in [(CORE, "EventList", "v1"), (GROUP, "EventList", "events.k8s.io/v1")] {
        let (_, list) = ask(&server, Method::GET, path, None).await;
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!(kind), &json!(version)));
        assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
    }
    for (path, selector) in [(CORE, "involvedObject.kind=Secret"), (GROUP, "regarding.kind=Secret")] {
        let (_, list) = ask(&server, Method::GET, &format!("{path}?fieldSelector={selector}"), None).await;
        let names: Vec<&Value> =
            list["items"].as_array().expect("items").iter().map(|e| &e["metadata"]["name"]).collect();
        assert_eq!(names, ["g"], "{selector}");
    }
    // Written in one, seen in the other, each in its own words.
    assert_eq!(ask(&server, Method::PATCH, &format!("{CORE}/c"), Some(json!({"count": 4}))).await.0, 200);
    assert_eq!(ask(&server, Method::GET, &format!("{GROUP}/c"), None).await.1["deprecatedCount"], 4);
    let late = Some(json!({"deprecatedCount": 5}));
    assert_eq!(ask(&server, Method::PATCH, &format!("{GROUP}/c"), late).await.0, 422, "in the new group counts stay");
    assert_eq!(ask(&server, Method::DELETE, &format!("{CORE}/g"), None).await.0, 200);
    for (watch, api, count) in watches
        .iter_mut()
        .zip(["v1", "events.k8s.io/v1"])
        .zip(["count", "deprecatedCount"])
        .map(|((w, a), c)| (w, a, c))
    {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let event = line(watch).await;
            assert_eq!(event["object"]["apiVersion"], api);
            seen.push(json!([event["type"], event["object"]["metadata"]["name"], event["object"][count]]));
        }
        let all = json!([["ADDED", "c", 3], ["ADDED", "g", null], ["MODIFIED", "c", 4], ["DELETED", "g", null]]);
        assert_eq!(json!(seen), all, "{api}");
    }
}

fn target() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"})
}

/// Every kind of metric, and what v1 has no fields for.
fn scaler() -> Value {
    let metric = |name: &str| json!({"name": name, "selector": {"matchLabels": {"a": "b"}}});
    let rules = json!({"stabilizationWindowSeconds": 60, "selectPolicy": "Min", "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 10, "periodSeconds": 60}]});
    let object = json!({"kind": "Ingress", "name": "i", "apiVersion": "networking.k8s.io/v1"});
    json!({"metadata": {"name": "s", "annotations": {"mine": "kept"}}, "spec": {
    "minReplicas": 2, "maxReplicas": 9, "scaleTargetRef": target(), "behavior": {"scaleDown": rules},
    "metrics": [
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 50}}},
        {"type": "Pods", "pods": {"metric": metric("hits"), "target": {"type": "AverageValue", "averageValue": "10"}}},
        {"type": "Object", "object": {"describedObject": object, "metric": metric("rate"),
            "target": {"type": "Value", "value": "2k"}}},
        {"type": "External", "external": {"metric": metric("queue"), "target": {"type": "AverageValue", "averageValue": "30"}}},
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
    ]}})
}

fn status() -> Value {
    let current = json!({"averageUtilization": 66, "averageValue": "120m"});
    json!({"status": {"currentReplicas": 3, "desiredReplicas": 4,
        "conditions": [{"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale",
            "message": "it may", "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": current}}]}})
}

#[tokio::test]
async fn autoscalers_lose_nothing_on_their_way_through_the_old_version() {
    let server = server(Memory::new()).await;
    let (code, made) = ask(&server, Method::POST, V2, Some(scaler())).await;
    assert_eq!(code, 201, "{made}");
    let (code, made) = ask(&server, Method::PATCH, &format!("{V2}/s/status"), Some(status())).await;
    assert_eq!(code, 200, "{made}");
    let (_, mut old) = ask(&server, Method::GET, &format!("{V1}/s"), None).await;
    let spec =
        json!({"minReplicas": 2, "maxReplicas": 9, "scaleTargetRef": target(), "targetCPUUtilizationPercentage": 70});
    assert_eq!(old["spec"], spec);
    let seen = json!({"currentReplicas": 3, "desiredReplicas": 4, "currentCPUUtilizationPercentage": 66});
    assert_eq!(old["status"], seen);
    let told = |name: &str| old["metadata"]["annotations"][format!("autoscaling.alpha.kubernetes.io/{name}")].clone();
    assert_eq!(old["metadata"]["annotations"].as_object().map(serde_json::Map::len), Some(5), "{old}");
    let current = r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":66,"currentAverageValue":"120m"}}]"#;
    assert_eq!(told("current-metrics"), current);
    let behavior = r#"{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15},{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null},"ScaleDown":{"StabilizationWindowSeconds":60,"SelectPolicy":"Min","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15},{"Type":"Percent","Value":10,"PeriodSeconds":60}],"Tolerance":null}}"#;
    assert_eq!(told("behavior"), behavior);
    let metrics: Value = serde_json::from_str(told("metrics").as_str().expect("a text")).expect("JSON");
    assert_eq!(metrics[0], json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}}));
    assert_eq!(metrics[3]["object"]["targetValue"], "2k");

    // Who reads and writes v1 changes what he changes, and nothing else.
    old["spec"]["targetCPUUtilizationPercentage"] = 71.into();
    let (code, put) = ask(&server, Method::PUT, &format!("{V1}/s"), Some(old)).await;
    assert_eq!(code, 200, "{put}");
    let (_, new) = ask(&server, Method::GET, &format!("{V2}/s"), None).await;
    let mut spec = made["spec"].clone();
    spec["metrics"][5]["resource"]["target"]["averageUtilization"] = 71.into();
    assert_eq!((&new["spec"], &new["status"]), (&spec, &made["status"]));
    assert_eq!(new["metadata"]["annotations"], json!({"mine": "kept"}));
    let patch = json!({"spec": {"maxReplicas": 10}});
    assert_eq!(ask(&server, Method::PATCH, &format!("{V1}/s"), Some(patch)).await.0, 200);
    spec["maxReplicas"] = 10.into();
    assert_eq!(ask(&server, Method::GET, &format!("{V2}/s"), None).await.1["spec"], spec);
}

#[tokio::test]
async fn autoscalers_of_the_old_version_have_its_meaning() {
    let server = server(Memory::new()).await;
    let made = |name: &str, spec: Value, annotations: Value| {
        let mut object = json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec});
        object["spec"]["maxReplicas"] = 3.into();
        object["spec"]["scaleTargetRef"] = target();
        let (server, name) = (server.clone(), name.to_owned());
        async move {
            let (code, made) = ask(&server, Method::POST, V1, Some(object)).await;
            assert_eq!(code, 201, "{made}");
            ask(&server, Method::GET, &format!("{V2}/{name}"), None).await.1
        }
    };
    let percent = |new: &Value| new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"].clone();
    let new = made("plain", json!({"targetCPUUtilizationPercentage": 40}), json!({})).await;
    assert_eq!((percent(&new), &new["apiVersion"]), (json!(40), &json!("autoscaling/v2")));
    assert_eq!(percent(&made("silent", json!({}), json!({})).await), json!(80));
    // Texts that upstream would not take are passed over; none is stored.
    for (at, text) in [
        "{",
        "7",
        "[{}]",
        r#"[{"type":"Pods","pods":{"metricName":5}}]"#,
        r#"[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"x"}}]"#,
    ]
    .into_iter()
    .enumerate()
    {
        let all = ["metrics", "current-metrics", "conditions", "behavior"];
        let texts: serde_json::Map<_, _> =
            all.map(|n| (format!("autoscaling.alpha.kubernetes.io/{n}"), text.into())).into_iter().collect();
        let new = made(&format!("odd{at}"), json!({}), texts.into()).await;
        assert_eq!(
            (percent(&new), &new["metadata"]["annotations"], &new["spec"]["behavior"]),
            (json!(80), &Value::Null, &Value::Null),
            "{text}: {new}"
        );
    }
}
