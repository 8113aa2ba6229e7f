//! The cluster's names.

use expect_test::expect;
use node_plan::dns::records;
use serde_json::json;

#[test]
fn records_of_every_kind_of_service() {
    let service = |name: &str, spec| {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})).unwrap()
    };
    let services = [
        service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]})),
        service("db", json!({"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]})),
        service("out", json!({"type": "ExternalName", "externalName": "example.org"})),
    ];
    let slice = serde_json::from_value(json!({
        "metadata": {"name": "db-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "pg", "port": 5432}],
        "endpoints": [
            {"addresses": ["10.1.0.2"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.1.0.3"], "conditions": {"ready": true}},
            {"addresses": ["10.1.0.4"], "conditions": {"ready": false}},
        ],
    }))
    .unwrap();
    let text: String = records(&services, &[slice], "cluster.local")
        .iter()
        .map(|(name, data)| format!("{name}: {data:?}\n"))
        .collect();
    expect![[r#"
        10-1-0-3.db.default.svc.cluster.local: [Address(10.1.0.3)]
        2.0.1.10.in-addr.arpa: [Pointer("db-0.db.default.svc.cluster.local")]
        5.0.96.10.in-addr.arpa: [Pointer("web.default.svc.cluster.local")]
        _http._tcp.web.default.svc.cluster.local: [Service { port: 80, target: "web.default.svc.cluster.local" }]
        _pg._tcp.db.default.svc.cluster.local: [Service { port: 5432, target: "10-1-0-3.db.default.svc.cluster.local" }, Service { port: 5432, target: "db-0.db.default.svc.cluster.local" }]
        db-0.db.default.svc.cluster.local: [Address(10.1.0.2)]
        db.default.svc.cluster.local: [Address(10.1.0.2), Address(10.1.0.3)]
        out.default.svc.cluster.local: [Alias("example.org")]
        web.default.svc.cluster.local: [Address(10.96.0.5)]
    "#]].assert_eq(&text);
}
