//! A service's row.

use serde_json::Value;

use crate::kinds::cell::{self, NONE, or, row};
use crate::tree::{list, number, text, texts};
use crate::{Document, Timestamp};

pub(super) fn cells(service: &Document, now: Timestamp) -> Option<Vec<Value>> {
    let cluster_ip = service.list_at("/spec/clusterIPs").first().and_then(Value::as_str).unwrap_or(NONE);
    let ports: Vec<String> = service.list_at("/spec/ports").iter().map(port).collect();
    row![
        service.name(),
        service.str_at("/spec/type"),
        cluster_ip,
        external_ip(service),
        or(&ports.join(","), NONE),
        cell::age(service, now),
        cell::labels(service.at("/spec/selector")),
    ]
}

fn port(port: &Value) -> String {
    let (number, protocol) = (number(port, "port").unwrap_or_default(), text(port, "protocol"));
    match crate::tree::number(port, "nodePort").unwrap_or_default() {
        node_port if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external_ip(service: &Document) -> String {
    let spec = service.at("/spec").unwrap_or(&Value::Null);
    let external = texts(spec, "externalIPs").join(",");
    match text(spec, "type") {
        "ClusterIP" | "NodePort" => or(&external, NONE).into(),
        "LoadBalancer" => {
            let balancer = load_balancer(service.at("/status/loadBalancer").unwrap_or(&Value::Null));
            let both = [balancer, external].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(",");
            or(&both, "<pending>").into()
        }
        "ExternalName" => text(spec, "externalName").into(),
        _ => "<unknown>".into(),
    }
}

/// The addresses or names of a load balancer's status, sorted.
pub(in crate::kinds) fn load_balancer(status: &Value) -> String {
    let mut all: Vec<&str> = list(status, "ingress").iter().map(|i| or(text(i, "ip"), text(i, "hostname"))).collect();
    all.retain(|s| !s.is_empty());
    all.sort_unstable();
    all.dedup();
    all.join(",")
}
