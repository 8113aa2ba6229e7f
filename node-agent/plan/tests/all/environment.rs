//! Environments from every source.

use api::k8s_openapi::api::core::v1::Container;
use expect_test::{Expect, expect};
use node_plan::NodeFacts;
use node_plan::env::{Sources, environment, expand};
use node_plan::fields::Downward;
use serde_json::{Value, json};

use crate::pod;

fn sources() -> Sources {
    let mut sources = Sources::default();
    sources.config_maps.insert("cm".into(), serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap());
    sources.secrets.insert("se".into(), serde_json::from_value(json!({"data": {"p": "cHc="}})).unwrap());
    let service = |ns: &str, name: &str| json!({"metadata": {"name": name, "namespace": ns}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}});
    sources.services = vec![
        serde_json::from_value(service("default", "kubernetes")).unwrap(),
        serde_json::from_value(service("other", "hidden")).unwrap(),
    ];
    sources
}

fn check(container: Value, expected: Expect) {
    let container: Container = serde_json::from_value(container).unwrap();
    let mut pod = pod(json!({"nodeName": "n1", "containers": [{"name": "c"}]}));
    pod.metadata.labels = Some([("app".to_string(), "x".to_string())].into());
    let node = NodeFacts { name: "n1".into(), ips: vec!["10.0.0.1".parse().unwrap()] };
    let allocatable = [("cpu".to_string(), "2".to_string()), ("memory".to_string(), "1Gi".to_string())].into();
    let facts = Downward { node, pod_ips: vec!["10.1.0.2".into()], allocatable: Some(&allocatable) };
    let text = match environment(&pod, &container, &sources(), &facts) {
        Ok(list) => {
            list.iter().filter(|(n, _)| !n.starts_with("KUBERNETES_PORT")).map(|(n, v)| format!("{n}={v}\n")).collect()
        }
        Err(error) => error,
    };
    expected.assert_eq(&text);
}

#[test]
fn every_source_in_its_order() {
    check(
        json!({
            "name": "c",
            "resources": {"requests": {"cpu": "1500m"}},
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "A", "value": "x$(P_a)$$(P_a)$(NO)$(KUBERNETES_SERVICE_HOST)"},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "D", "valueFrom": {"secretKeyRef": {"name": "se", "key": "p"}}},
                {"name": "E", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no", "optional": true}}},
                {"name": "F", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
                {"name": "G", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "P_b", "value": "$(D)"},
            ],
        }),
        expect![[r#"
            P_a=1
            P_b=pw
            A=x1$(P_a)$(NO)10.96.0.9
            B=x
            C=10.1.0.2
            D=pw
            F=2
            G=1024
            KUBERNETES_SERVICE_HOST=10.96.0.9
            KUBERNETES_SERVICE_PORT=80
            KUBERNETES_SERVICE_PORT_HTTP=80
        "#]],
    );
}

#[test]
fn what_is_missing_is_named() {
    check(
        json!({"name": "c", "envFrom": [{"configMapRef": {"name": "no"}}]}),
        expect![[r#"configmap "no" not found"#]],
    );
    check(
        json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "se", "key": "no"}}}]}),
        expect!["couldn't find key no in Secret default/se"],
    );
}

#[test]
fn expansion_as_upstream_does_it() {
    let value = "V".to_string();
    let table = [
        ("$(A)", "V"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("$$", "$"),
        ("a$", "a$"),
        ("$$$(A)", "$V"),
    ];
    for (text, expected) in table {
        assert_eq!(expand(text, |n| (n == "A").then_some(&value)), expected, "{text}");
    }
}
