//! What a change of a service's type takes with it (`dropTypeDependentFields`).

use serde_json::Value;

use super::externally_accessible;
use crate::Document;
use crate::tree::{items_mut, list, number, replace, text};
use crate::validation::same;

/// Drops fields that no longer apply and that the user did not also change.
pub(super) fn drop_type_dependent(new: &mut Document, old: &Document) {
    let before = old.at("/spec").unwrap_or(&Value::Null);
    let Some(spec) = new.at_mut("/spec") else { return };
    let unchanged = |spec: &Value, field: &str| same(spec.get(field), before.get(field));
    if needs_cluster_ip(before) && !needs_cluster_ip(spec) {
        if unchanged(spec, "clusterIP") && unchanged(spec, "clusterIPs") {
            replace(spec, "clusterIP", None);
            replace(spec, "clusterIPs", None);
        }
        drop_if(spec, "ipFamilies", unchanged(spec, "ipFamilies"));
        drop_if(spec, "ipFamilyPolicy", unchanged(spec, "ipFamilyPolicy"));
    }
    if needs_node_port(before) && !needs_node_port(spec) && no_new_node_ports(spec, before) {
        items_mut(spec, "ports").for_each(|port| replace(port, "nodePort", None));
    }
    if needs_health_check_port(before) && !needs_health_check_port(spec) {
        drop_if(spec, "healthCheckNodePort", unchanged(spec, "healthCheckNodePort"));
    }
    if is_balanced(before) && !is_balanced(spec) {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            drop_if(spec, field, unchanged(spec, field));
        }
    }
    if externally_accessible(before) && !externally_accessible(spec) {
        drop_if(spec, "externalTrafficPolicy", unchanged(spec, "externalTrafficPolicy"));
    }
    if !is_balanced(spec) {
        new.set("/status/loadBalancer", serde_json::json!({}));
    }
}

fn drop_if(spec: &mut Value, field: &str, condition: bool) {
    if condition {
        replace(spec, field, None);
    }
}

fn needs_cluster_ip(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

fn is_balanced(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer"
}

fn needs_node_port(spec: &Value) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

fn needs_health_check_port(spec: &Value) -> bool {
    is_balanced(spec) && text(spec, "externalTrafficPolicy") == "Local"
}

fn no_new_node_ports(spec: &Value, before: &Value) -> bool {
    let ports =
        |spec: &Value| -> Vec<i64> { list(spec, "ports").iter().filter_map(|p| number(p, "nodePort")).collect() };
    let known = ports(before);
    ports(spec).iter().all(|port| *port == 0 || known.contains(port))
}
