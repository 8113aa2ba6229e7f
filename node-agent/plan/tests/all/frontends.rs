//! Services as addresses and where they lead.

use std::sync::Arc;

use api::ObjectName;
use api::k8s_openapi::api::core::v1::Service;
use api::k8s_openapi::api::discovery::v1::EndpointSlice;
use expect_test::{Expect, expect};
use node_plan::services::{Board, Changes, Frontend, Place};
use serde_json::{Value, json};

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

fn slice(of: &str, endpoints: &Value) -> Option<Arc<EndpointSlice>> {
    let ports =
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let metadata = json!({"namespace": "default", "labels": {"kubernetes.io/service-name": of}});
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
    Some(Arc::new(serde_json::from_value(slice).unwrap()))
}

fn service(spec: &Value, status: &Value) -> Option<Arc<Service>> {
    let service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec, "status": status});
    Some(Arc::new(serde_json::from_value(service).unwrap()))
}

fn place() -> Place {
    Place { node: "n1".into(), zone: "east".into(), ips: vec!["192.168.0.1".parse().unwrap()] }
}

fn board() -> Board {
    let mut board = Board::default();
    board.place(place());
    board
}

fn line(f: &Frontend) -> String {
    let ip = |list: &[std::net::SocketAddr]| {
        list.iter().map(|e| e.to_string().replace("10.1.0.", ".")).collect::<Vec<_>>().join(" ")
    };
    let mut text = format!("{:?} {:?} -> [{}]", f.at, f.protocol, ip(&f.endpoints));
    if let Some(outside) = &f.outside {
        text += &format!(", from outside [{}]", ip(outside));
    }
    if f.elsewhere {
        text += ", elsewhere";
    }
    if f.affinity_seconds > 0 {
        text += &format!(", {} s", f.affinity_seconds);
    }
    if !f.sources.is_empty() {
        text += &format!(", for {:?}", f.sources);
    }
    if !f.serving.is_empty() {
        text += &format!(", serving [{}]", ip(&f.serving));
    }
    text + "\n"
}

fn lines(changes: &Changes) -> String {
    let gone: String = changes.gone.iter().map(|(at, protocol)| format!("{at:?} {protocol:?} gone\n")).collect();
    changes.frontends.iter().map(line).collect::<String>() + &gone
}

/// What a service with these endpoints becomes.
fn check(spec: Value, status: Value, endpoints: Value, expected: Expect) {
    let mut board = board();
    board.service(name("web"), service(&spec, &status));
    board.slice(name("web-1"), slice("web", &endpoints));
    expected.assert_eq(&lines(&board.changes()));
    assert!(board.changes().is_empty(), "nothing has changed since");
}

fn port() -> Value {
    json!([{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}])
}

const ENDING: (bool, bool, bool) = (false, true, true);
const READY: (bool, bool, bool) = (true, true, false);

fn endpoint(address: &str, node: &str, (ready, serving, terminating): (bool, bool, bool)) -> Value {
    let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
    json!({"addresses": [address], "nodeName": node, "conditions": conditions})
}

fn endpoints() -> Value {
    json!([endpoint("10.1.0.3", "n2", READY), endpoint("10.1.0.2", "n1", READY), endpoint("10.1.0.4", "n1", ENDING)])
}

#[test]
fn cluster_addresses_node_ports_and_affinity() {
    check(
        json!({"clusterIP": "10.96.0.5", "ports": port(), "sessionAffinity": "ClientIP"}),
        json!({}),
        endpoints(),
        expect![[r#"
            Ip(10.96.0.5:80) Tcp -> [.2:8080 .3:8080], 10800 s
            NodePort(30080) Tcp -> [.2:8080 .3:8080], 10800 s
        "#]],
    );
    check(json!({"clusterIP": "None", "ports": port()}), json!({}), endpoints(), expect![""]);
    check(
        json!({"type": "ExternalName", "clusterIP": "10.96.0.5", "ports": port()}),
        json!({}),
        endpoints(),
        expect![""],
    );
}

#[test]
fn external_policy_local_is_for_those_outside() {
    let spec = json!({"clusterIP": "10.96.0.5", "ports": port(), "externalTrafficPolicy": "Local", "externalIPs": ["1.2.3.4"]});
    check(
        spec.clone(),
        json!({}),
        endpoints(),
        expect![[r#"
            Ip(1.2.3.4:80) Tcp -> [.2:8080 .3:8080], from outside [.2:8080]
            Ip(10.96.0.5:80) Tcp -> [.2:8080 .3:8080]
            NodePort(30080) Tcp -> [.2:8080 .3:8080], from outside [.2:8080]
        "#]],
    );
    check(
        spec.clone(),
        json!({}),
        json!([
            endpoint("10.1.0.3", "n2", READY),
            endpoint("10.1.0.4", "n1", ENDING),
            endpoint("10.1.0.5", "n2", ENDING)
        ]),
        expect![[r#"
            Ip(1.2.3.4:80) Tcp -> [.3:8080], from outside [.4:8080]
            Ip(10.96.0.5:80) Tcp -> [.3:8080]
            NodePort(30080) Tcp -> [.3:8080], from outside [.4:8080]
        "#]],
    );
    check(
        spec,
        json!({}),
        json!([endpoint("10.1.0.3", "n2", READY)]),
        expect![[r#"
            Ip(1.2.3.4:80) Tcp -> [.3:8080], from outside []
            Ip(10.96.0.5:80) Tcp -> [.3:8080]
            NodePort(30080) Tcp -> [.3:8080], from outside []
        "#]],
    );
}

#[test]
fn internal_policy_local_drops_where_only_other_nodes_have_endpoints() {
    let spec = json!({"clusterIP": "10.96.0.5", "ports": port(), "internalTrafficPolicy": "Local"});
    check(
        spec.clone(),
        json!({}),
        json!([endpoint("10.1.0.3", "n2", READY)]),
        expect![[r#"
            Ip(10.96.0.5:80) Tcp -> [], elsewhere
            NodePort(30080) Tcp -> [.3:8080]
        "#]],
    );
    check(
        spec,
        json!({}),
        json!([]),
        expect![[r#"
            Ip(10.96.0.5:80) Tcp -> []
            NodePort(30080) Tcp -> []
        "#]],
    );
}

#[test]
fn where_none_is_ready_the_ones_that_still_serve_are_used() {
    check(
        json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]}),
        json!({}),
        json!([
            endpoint("10.1.0.4", "n1", ENDING),
            endpoint("10.1.0.5", "n1", (false, false, true)),
            endpoint("10.1.0.6", "n1", (false, true, false))
        ]),
        expect![[r#"
            Ip(10.96.0.5:80) Tcp -> [.4:8080]
        "#]],
    );
}

#[test]
fn of_two_endpoints_with_one_address_the_one_that_lives_counts() {
    let spec = json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]});
    let (ending, ready) = (endpoint("10.1.0.4", "n2", ENDING), endpoint("10.1.0.4", "n1", READY));
    for list in [json!([ending, ready]), json!([ready, ending])] {
        let expected = expect![[r#"
            Ip(10.96.0.5:80) Tcp -> [.4:8080]
        "#]];
        check(spec.clone(), json!({}), list, expected);
    }
}

#[test]
fn udp_keeps_what_still_serves() {
    check(
        json!({"clusterIP": "10.96.0.5", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}),
        json!({}),
        endpoints(),
        expect![[r#"
            Ip(10.96.0.5:53) Udp -> [.2:53 .3:53], serving [.4:53]
        "#]],
    );
}

#[test]
fn load_balancers_and_who_may_use_them() {
    let ingress =
        json!([{"ip": "5.6.7.8"}, {"ip": "5.6.7.9", "ipMode": "Proxy"}, {"hostname": "x"}, {"ip": "fd00::1"}]);
    let status = json!({"loadBalancer": {"ingress": ingress}});
    let spec = |ranges: Value| {
        json!({"type": "LoadBalancer", "clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}],
               "loadBalancerSourceRanges": ranges})
    };
    check(
        spec(json!([" 10.0.0.0/8", "fd00::/8"])),
        status.clone(),
        endpoints(),
        expect![[r#"
            Ip(5.6.7.8:80) Tcp -> [.2:8080 .3:8080], for [(10.0.0.0, 8)]
            Ip(10.96.0.5:80) Tcp -> [.2:8080 .3:8080]
        "#]],
    );
    check(
        spec(json!(["192.168.0.0/30"])),
        status.clone(),
        endpoints(),
        expect![[r#"
            Ip(5.6.7.8:80) Tcp -> [.2:8080 .3:8080], for [(192.168.0.0, 30), (5.6.7.8, 32)]
            Ip(10.96.0.5:80) Tcp -> [.2:8080 .3:8080]
        "#]],
    );
    check(
        spec(json!(["10.0.0.0/8", "0.0.0.0/0"])),
        status,
        endpoints(),
        expect![[r#"
            Ip(5.6.7.8:80) Tcp -> [.2:8080 .3:8080]
            Ip(10.96.0.5:80) Tcp -> [.2:8080 .3:8080]
        "#]],
    );
}

#[test]
fn hints_are_heeded_where_all_have_one_and_one_is_for_us() {
    let hinted = |address: &str, zone: &str, node: Option<&str>| {
        let mut endpoint = endpoint(address, "n2", READY);
        endpoint["hints"] = json!({"forZones": [{"name": zone}]});
        if let Some(node) = node {
            endpoint["hints"]["forNodes"] = json!([{"name": node}]);
        }
        endpoint
    };
    let cases = [
        (json!([hinted("10.1.0.2", "east", None), hinted("10.1.0.3", "west", None)]), "[.2:8080]"),
        (json!([hinted("10.1.0.2", "west", None), hinted("10.1.0.3", "west", None)]), "[.2:8080 .3:8080]"),
        (json!([hinted("10.1.0.2", "east", None), endpoint("10.1.0.3", "n2", READY)]), "[.2:8080 .3:8080]"),
        (json!([hinted("10.1.0.2", "east", None), endpoint("10.1.0.3", "n2", ENDING)]), "[.2:8080]"),
        (json!([hinted("10.1.0.2", "east", Some("n2")), hinted("10.1.0.3", "east", Some("n1"))]), "[.3:8080]"),
        (json!([hinted("10.1.0.2", "east", Some("n2")), hinted("10.1.0.3", "west", Some("n3"))]), "[.2:8080]"),
        (json!([hinted("10.1.0.2", "west", Some("n2")), hinted("10.1.0.3", "east", None)]), "[.3:8080]"),
    ];
    for (endpoints, expected) in cases {
        let mut board = board();
        board.service(
            name("web"),
            service(&json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]}), &json!({})),
        );
        board.slice(name("web-1"), slice("web", &endpoints));
        assert_eq!(lines(&board.changes()), format!("Ip(10.96.0.5:80) Tcp -> {expected}\n"), "{endpoints}");
    }
}

#[test]
fn only_what_a_change_touches_is_told() {
    let mut board = board();
    let spec = |ip: &str| service(&json!({"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}), &json!({}));
    let one = |ip: &str| json!([endpoint(ip, "n1", READY)]);
    board.service(name("a"), spec("10.96.0.5"));
    board.service(name("b"), spec("10.96.0.6"));
    board.slice(name("a-1"), slice("a", &one("10.1.0.2")));
    board.slice(name("b-1"), slice("b", &one("10.1.0.3")));
    let mut told = |what: &str, change: &dyn Fn(&mut Board), expected: &str| {
        change(&mut board);
        assert_eq!(lines(&board.changes()), expected, "{what}");
    };
    let both = "Ip(10.96.0.5:80) Tcp -> [.2:8080]\nIp(10.96.0.6:80) Tcp -> [.3:8080]\n";
    told("all", &|_| {}, both);
    told("the same again", &|b| b.slice(name("a-1"), slice("a", &one("10.1.0.2"))), "");
    told("another", &|b| b.slice(name("b-1"), slice("b", &one("10.1.0.4"))), "Ip(10.96.0.6:80) Tcp -> [.4:8080]\n");
    told(
        "a slice moves",
        &|b| b.slice(name("b-1"), slice("a", &one("10.1.0.4"))),
        "Ip(10.96.0.5:80) Tcp -> [.2:8080 .4:8080]\nIp(10.96.0.6:80) Tcp -> []\n",
    );
    told("a slice goes", &|b| b.slice(name("b-1"), None), "Ip(10.96.0.5:80) Tcp -> [.2:8080]\n");
    told("a second owner waits", &|b| b.service(name("c"), spec("10.96.0.5")), "");
    told("a first owner goes", &|b| b.service(name("a"), None), "Ip(10.96.0.5:80) Tcp -> []\n");
    told("both are gone", &|b| b.service(name("c"), None), "Ip(10.96.0.5:80) Tcp gone\n");
    told("the node's place", &|b| b.place(Place { zone: "west".into(), ..place() }), "");
}

#[test]
fn health_ports_are_of_balancers_with_local_policy() {
    let spec = |policy: &str, kind: &str| {
        json!({"type": kind, "clusterIP": "10.96.0.5", "healthCheckNodePort": 31000, "externalTrafficPolicy": policy,
               "ports": [{"name": "http", "port": 80}]})
    };
    let health = |policy: &str, kind: &str, endpoints: Value| {
        let mut board = board();
        board.service(name("web"), service(&spec(policy, kind), &json!({})));
        board.slice(name("web-1"), slice("web", &endpoints));
        board.changes();
        board.health().values().map(|health| (health.port, health.endpoints)).collect::<Vec<_>>()
    };
    assert_eq!(health("Local", "LoadBalancer", endpoints()), [(31000, 1)]);
    assert_eq!(health("Local", "LoadBalancer", json!([endpoint("10.1.0.4", "n1", ENDING)])), [(31000, 0)]);
    assert_eq!(health("Cluster", "LoadBalancer", endpoints()), []);
    assert_eq!(health("Local", "NodePort", endpoints()), []);
}
