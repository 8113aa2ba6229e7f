//! Whether the node takes a pod.

use api::k8s_openapi::api::core::v1::Node;
use node_plan::admit::admit;
use serde_json::{Value, json};

use crate::pod;

fn verdict(spec: Value, others: &[Value]) -> Option<(String, String)> {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n1", "labels": {"disk": "ssd"}},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "2"}},
    }))
    .unwrap();
    let others: Vec<_> = others
        .iter()
        .enumerate()
        .map(|(n, spec)| {
            let mut other = pod(spec.clone());
            other.metadata.uid = Some(format!("o{n}"));
            other
        })
        .collect();
    admit(&pod(spec), &others, &node).map(|v| (v.reason, v.message))
}

#[test]
fn resources_ports_and_selectors() {
    let cpu = |n: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": n}}}]});
    let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]});
    assert_eq!(verdict(cpu("1"), &[cpu("1")]), None);
    let short = "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000";
    assert_eq!(verdict(cpu("1500m"), &[cpu("1")]), Some(("OutOfcpu".into(), short.into())));
    let full = "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2";
    assert_eq!(verdict(cpu("0"), &[cpu("0"), cpu("0")]), Some(("OutOfpods".into(), full.into())));
    assert_eq!(verdict(port(""), &[port("127.0.0.1")]).unwrap().0, "NodePorts");
    assert_eq!(verdict(port("127.0.0.2"), &[port("127.0.0.1")]), None);
    let selector = |v: &str| json!({"nodeSelector": {"disk": v}, "containers": [{"name": "c"}]});
    assert_eq!(verdict(selector("ssd"), &[]), None);
    assert_eq!(verdict(selector("tape"), &[]).unwrap().0, "NodeAffinity");
}
