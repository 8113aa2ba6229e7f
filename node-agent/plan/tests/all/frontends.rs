//! Services as addresses and where they lead.

use api::k8s_openapi::api::core::v1::Service;
use api::k8s_openapi::api::discovery::v1::EndpointSlice;
use expect_test::{Expect, expect};
use node_plan::services::frontends;
use serde_json::{Value, json};

fn slice(endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    }))
    .unwrap()
}

fn check(spec: Value, endpoints: Value, expected: Expect) {
    let service: Service =
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})).unwrap();
    let list = frontends(&[service], &[slice(endpoints)], &[], "n1");
    let text: String = list
        .iter()
        .map(|f| format!("{:?} -> {:?} {} {}\n", f.at, f.endpoints, f.affinity_seconds, f.keep_source))
        .collect();
    expected.assert_eq(&text);
}

fn endpoints() -> Value {
    json!([
        {"addresses": ["10.1.0.3"], "nodeName": "n2", "conditions": {"ready": true}},
        {"addresses": ["10.1.0.2"], "nodeName": "n1", "conditions": {"ready": true}},
        {"addresses": ["10.1.0.4"], "nodeName": "n1", "conditions": {"ready": false, "serving": true, "terminating": true}},
    ])
}

#[test]
fn cluster_addresses_node_ports_and_policies() {
    let port = json!([{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]);
    check(
        json!({"clusterIP": "10.96.0.5", "ports": port, "sessionAffinity": "ClientIP"}),
        endpoints(),
        expect![[r#"
        Ip(10.96.0.5:80) -> [10.1.0.2:8080, 10.1.0.3:8080] 10800 false
        NodePort(30080) -> [10.1.0.2:8080, 10.1.0.3:8080] 10800 false
    "#]],
    );
    check(
        json!({"clusterIP": "10.96.0.5", "ports": port, "externalTrafficPolicy": "Local"}),
        endpoints(),
        expect![[r#"
        Ip(10.96.0.5:80) -> [10.1.0.2:8080, 10.1.0.3:8080] 0 false
        NodePort(30080) -> [10.1.0.2:8080] 0 true
    "#]],
    );
    check(
        json!({"clusterIP": "None", "ports": port}),
        endpoints(),
        expect![[r#"
        NodePort(30080) -> [10.1.0.2:8080, 10.1.0.3:8080] 0 false
    "#]],
    );
}

#[test]
fn where_none_is_ready_the_ones_that_still_serve_are_used() {
    let port = json!([{"name": "http", "port": 80}]);
    let ending = json!([
        {"addresses": ["10.1.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.1.0.5"], "conditions": {"ready": false, "serving": false, "terminating": true}},
    ]);
    check(
        json!({"clusterIP": "10.96.0.5", "ports": port}),
        ending,
        expect![[r#"
        Ip(10.96.0.5:80) -> [10.1.0.4:8080] 0 false
    "#]],
    );
    check(
        json!({"clusterIP": "10.96.0.5", "ports": port}),
        json!([]),
        expect![[r#"
        Ip(10.96.0.5:80) -> [] 0 false
    "#]],
    );
}
