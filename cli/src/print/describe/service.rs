//! A service and where it leads.

use api::Timestamp;
use serde_json::Value;

use super::Related;
use super::text::Text;
use crate::verbs::value::{list, number_at, text, text_at};

pub(super) fn service(service: &Value, related: &Related, _now: Timestamp, out: &mut Text) {
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let join = |field: &str| {
        let all: Vec<&str> = list(spec, field).iter().filter_map(Value::as_str).collect();
        if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
    };
    out.field(0, "Name", text_at(service, "/metadata/name"));
    out.field(0, "Namespace", text_at(service, "/metadata/namespace"));
    out.pairs("Labels", service.pointer("/metadata/labels"));
    out.annotations("Annotations", service.pointer("/metadata/annotations"));
    let pairs = spec.get("selector").and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    out.field(0, "Selector", if pairs.is_empty() { "<none>".into() } else { pairs.join(",") });
    out.field(0, "Type", text(spec, "type"));
    out.some(0, "IP Family Policy", text(spec, "ipFamilyPolicy"));
    out.field(0, "IP Families", join("ipFamilies"));
    out.field(0, "IP", text(spec, "clusterIP"));
    out.field(0, "IPs", join("clusterIPs"));
    if !list(spec, "externalIPs").is_empty() {
        out.field(0, "External IPs", join("externalIPs"));
    }
    out.some(0, "External Name", text(spec, "externalName"));
    let ingress = list(service.pointer("/status/loadBalancer").unwrap_or(&Value::Null), "ingress");
    if !ingress.is_empty() {
        let shown: Vec<&str> =
            ingress.iter().flat_map(|i| [text(i, "ip"), text(i, "hostname")]).filter(|s| !s.is_empty()).collect();
        out.field(0, "LoadBalancer Ingress", shown.join(", "));
    }
    list(spec, "ports").iter().for_each(|each| port(each, related, out));
    out.field(0, "Session Affinity", text(spec, "sessionAffinity"));
    out.some(0, "External Traffic Policy", text(spec, "externalTrafficPolicy"));
    out.some(0, "Internal Traffic Policy", text(spec, "internalTrafficPolicy"));
    if number_at(spec, "/healthCheckNodePort") != 0 {
        out.field(0, "HealthCheck NodePort", number_at(spec, "/healthCheckNodePort"));
    }
    out.some(0, "Traffic Distribution", text(spec, "trafficDistribution"));
}

fn port(port: &Value, related: &Related, out: &mut Text) {
    let protocol = text(port, "protocol");
    let name = if text(port, "name").is_empty() { "<unset>" } else { text(port, "name") };
    out.field(0, "Port", format!("{name}\t{}/{protocol}", number_at(port, "/port")));
    let target = match port.get("targetPort") {
        Some(Value::String(name)) => name.clone(),
        other => other.map(ToString::to_string).unwrap_or_default(),
    };
    out.field(0, "TargetPort", format!("{target}/{protocol}"));
    out.some(0, "AppProtocol", text(port, "appProtocol"));
    if number_at(port, "/nodePort") != 0 {
        out.field(0, "NodePort", format!("{name}\t{}/{protocol}", number_at(port, "/nodePort")));
    }
    out.field(0, "Endpoints", endpoints(related, text(port, "name")));
}

/// Up to three addresses that are ready.
fn endpoints(related: &Related, port_name: &str) -> String {
    let mut all = Vec::new();
    for slice in &related.endpoint_slices {
        for port in list(slice, "ports").iter().filter(|p| text(p, "name") == port_name) {
            let number = number_at(port, "/port");
            let ready =
                list(slice, "endpoints").iter().filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
            let addresses = ready.filter_map(|e| list(e, "addresses").first()?.as_str());
            all.extend(
                addresses
                    .map(|ip| if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }),
            );
        }
    }
    let shown = all.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}
