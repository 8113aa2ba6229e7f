//! Warnings about a Service (`pkg/api/service/warnings.go`).

use serde_json::Value;

use crate::Document;
use crate::tree::{list, text};

/// What the service says that is deprecated or has no effect.
pub(super) fn warnings(service: &Document) -> Vec<String> {
    let spec = service.at("/spec").unwrap_or(&Value::Null);
    let kind = text(spec, "type");
    let external = kind == "ExternalName";
    let headless = kind == "ClusterIP" && text(spec, "clusterIP") == "None";
    let has_external_ips = !list(spec, "externalIPs").is_empty();
    let close = text(spec, "trafficDistribution") == "PreferClose";
    let told = [
        (
            service.annotation("service.kubernetes.io/topology-aware-hints").is_some(),
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
        ),
        (headless && !text(spec, "loadBalancerIP").is_empty(), "spec.loadBalancerIP is ignored for headless services"),
        (headless && has_external_ips, "spec.externalIPs is ignored for headless services"),
        (headless && text(spec, "sessionAffinity") != "None", "spec.SessionAffinity is ignored for headless services"),
        (
            has_external_ips && !headless && !external,
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
        (external && has_external_ips, "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
        (
            !external && !text(spec, "externalName").is_empty(),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (close, "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""),
    ];
    told.into_iter().filter(|(is, _)| *is).map(|(_, text)| text.to_owned()).collect()
}
