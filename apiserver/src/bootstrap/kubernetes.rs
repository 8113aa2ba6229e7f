//! The service by which pods reach the API server (`pkg/controlplane/controller/kubernetesservice`).

use std::net::{IpAddr, SocketAddr};

use api::Document;
use serde_json::{Value, json};

/// The service, its endpoints and their slice. Pods reach the servers at `addresses`; a loopback address is not one.
pub(super) fn objects(service_address: IpAddr, addresses: &[SocketAddr]) -> Vec<Document> {
    let reached = |address: &&SocketAddr| address.is_ipv4() == service_address.is_ipv4() && !address.ip().is_loopback();
    let same_family: Vec<&SocketAddr> = addresses.iter().filter(reached).collect();
    let Some(first) = same_family.first() else {
        return vec![service(service_address, addresses.first().map_or(6443, SocketAddr::port))];
    };
    let port = first.port();
    let ips: Vec<String> = same_family.iter().map(|address| address.ip().to_string()).collect();
    vec![service(service_address, port), endpoints(&ips, port), slice(service_address, &ips, port)]
}

fn document(value: Value) -> Document {
    Document::new(value).unwrap_or_default()
}

fn service(address: IpAddr, port: u16) -> Document {
    document(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address.to_string(),
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    }))
}

fn endpoints(ips: &[String], port: u16) -> Document {
    let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    document(json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    }))
}

fn slice(service: IpAddr, ips: &[String], port: u16) -> Document {
    let endpoints: Vec<Value> =
        ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    document(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if service.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }))
}
