//! Service.

mod cells;
mod prepare;

use serde_json::{Value, json};

use super::{Change, NameFormat, Operation, Rules};
use crate::tree::{fill, get, items_mut, list, number, object, replace, set, text};
use crate::{Document, Timestamp};

/// Rules of `v1 Service`. Addresses, families and node ports are allocated by the write that creates it.
pub(super) struct Service;

impl Rules for Service {
    fn default(&self, service: &mut Document) {
        if let Some(spec) = service.at_mut("/spec") {
            default_spec(spec);
        }
        if service.str_at("/spec/type") == "LoadBalancer" {
            let status = object(object(service.value_mut(), "status"), "loadBalancer");
            for ingress in items_mut(status, "ingress") {
                if !text(ingress, "ip").is_empty() {
                    fill(ingress, "ipMode", "VIP");
                }
            }
        }
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        if let (Operation::Update, "", Some(old)) = (change.operation, change.subresource, change.old) {
            prepare::drop_type_dependent(new, old);
        }
    }

    fn name_format(&self) -> NameFormat {
        NameFormat::Label
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn selectable(&self, service: &Document) -> Vec<(&'static str, String)> {
        vec![
            ("spec.clusterIP", service.str_at("/spec/clusterIP").into()),
            ("spec.type", service.str_at("/spec/type").into()),
        ]
    }

    fn cells(&self, service: &Document, now: Timestamp) -> Option<Vec<Value>> {
        cells::cells(service, now)
    }
}

fn default_spec(spec: &mut Value) {
    fill(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => replace(spec, "sessionAffinityConfig", None),
        "ClientIP" if spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").is_none_or(Value::is_null) => {
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10800}}));
        }
        _ => {}
    }
    fill(spec, "type", "ClusterIP");
    items_mut(spec, "ports").for_each(default_port);
    if externally_accessible(spec) {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(text(spec, "type"), "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if text(spec, "type") == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn default_port(port: &mut Value) {
    fill(port, "protocol", "TCP");
    let unset = get(port, "targetPort").is_none_or(|target| target == 0 || target == "");
    if unset {
        let number = number(port, "port").unwrap_or_default();
        set(port, "targetPort", number);
    }
}

/// Whether anything outside the cluster may reach it.
fn externally_accessible(spec: &Value) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}
