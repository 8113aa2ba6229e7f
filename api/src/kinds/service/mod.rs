//! Service.

mod cells;
mod prepare;
mod validate;
mod warnings;

pub(super) use cells::load_balancer;

use serde_json::{Value, json};

use super::{Change, NameFormat, Operation, Rules};
use crate::field::Errors;
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

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        validate::validate(new, change)
    }

    fn warnings(&self, new: &Document, change: &Change<'_>) -> Vec<String> {
        if change.subresource.is_empty() { warnings::warnings(new) } else { Vec::new() }
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

#[cfg(test)]
mod tests {
    use super::Service;
    use crate::Document;
    use crate::kinds::tests::{cells, create, update};
    use serde_json::{Value, json};

    fn service(spec: Value) -> Document {
        Document::new(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap_or_default()
    }

    #[test]
    fn ports_and_addresses_are_checked() {
        assert_eq!(create(&Service, service(json!({"ports": [{"port": 80}]}))), Vec::<String>::new());
        assert_eq!(
            create(&Service, service(json!({"type": "ExternalName", "externalName": "a.b."}))),
            Vec::<String>::new()
        );
        let cases = [
            (json!({}), "spec.ports: Required value"),
            (
                json!({"ports": [{"port": 0, "targetPort": 1}]}),
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (json!({"ports": [{"port": 1}, {"port": 2, "name": "b"}]}), "spec.ports[0].name: Required value"),
            (
                json!({"ports": [{"port": 1, "nodePort": 30000}]}),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                json!({"ports": [{"port": 1}], "externalTrafficPolicy": "Local"}),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
        ];
        for (spec, want) in cases {
            assert_eq!(create(&Service, service(spec)), [want]);
        }
    }

    #[test]
    fn the_address_stays_and_node_ports_go_with_the_type() {
        let with = |ip: &str, kind: &str| {
            service(
                json!({"type": kind, "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 1, "nodePort": 30001}]}),
            )
        };
        let (_, errors) = update(&Service, "", with("10.0.0.2", "NodePort"), with("10.0.0.1", "NodePort"));
        assert_eq!(errors, ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]);
        let (new, errors) = update(&Service, "", with("10.0.0.1", "ClusterIP"), with("10.0.0.1", "NodePort"));
        assert_eq!((new.at("/spec/ports/0/nodePort"), errors), (None, Vec::new()));
    }

    #[test]
    fn a_row_shows_ports_and_addresses() {
        let spec = json!({"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]});
        let row = cells(&Service, json!({"metadata": {"name": "s"}, "spec": spec}));
        assert_eq!(row.join(" "), "s LoadBalancer <none> <pending> 80:30080/TCP,53/UDP <unknown> <none>");
    }
}
