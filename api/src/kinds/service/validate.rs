//! What is wrong with a service (`validateService` and its companions).

use serde_json::Value;

use super::externally_accessible;
use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::kinds::Change;
use crate::tree::{get, list, number, text, texts};
use crate::validation::labels::labels;
use crate::validation::{
    address, dns_label, dns_subdomain, invalid_each, port_or_name, protocol, qualified_name, supported, text as names,
};

/// On create, update and of status.
pub(super) fn validate(new: &Document, change: &Change<'_>) -> Errors {
    let nothing = Value::Null;
    let (spec, path) = (new.at("/spec").unwrap_or(&nothing), Path::new("spec"));
    if change.subresource == "status" {
        return balancer_status(new, spec);
    }
    let mut errors = Errors::new();
    if let Some(old) = change.old {
        let before = old.at("/spec").unwrap_or(&nothing);
        errors.extend(cluster_ips_kept(spec, before, &path));
        errors.extend(families_kept(spec, before, &path));
        let class = |spec: &Value| text(spec, "loadBalancerClass").to_owned();
        if is_balanced(spec) && is_balanced(before) && class(spec) != class(before) {
            let value = spec.get("loadBalancerClass").cloned().unwrap_or_default();
            errors.push(Error::invalid(path.child("loadBalancerClass"), value, "may not change once set"));
        }
    }
    errors.extend(whole(spec, &path));
    errors
}

fn is_balanced(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer"
}

fn is_headless(spec: &Value) -> bool {
    texts(spec, "clusterIPs") == ["None"]
}

fn whole(spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let kind = text(spec, "type");
    let ports = list(spec, "ports");
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.push(Error::required(path.child("ports"), ""));
    }
    errors.extend(by_type(spec, path));
    let mut seen = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        errors.extend(one_port(port, ports.len() > 1, &mut seen, &path.child("ports").index(i)));
    }
    errors.extend(labels(get(spec, "selector"), &path.child("selector")));
    errors.extend(affinity(spec, path));
    if kind != "ExternalName" {
        errors.extend(cluster_ips(spec, path));
    }
    for (i, ip) in texts(spec, "externalIPs").iter().enumerate() {
        errors.extend(address::endpoint_ip(ip, &path.child("externalIPs").index(i)));
    }
    errors.extend(supported(kind, &path.child("type"), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]));
    errors.extend(port_conflicts(ports, kind, &path.child("ports")));
    errors.extend(balancer(spec, path));
    errors.extend(traffic(spec, path));
    errors
}

fn by_type(spec: &Value, path: &Path) -> Errors {
    let kind = text(spec, "type");
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            vec![Error::invalid(path.child("clusterIPs").index(0), "None", detail)]
        }
        "ExternalName" => {
            let set = |field: &&str| get(spec, field).is_some_and(|v| v.as_array().is_none_or(|a| !a.is_empty()));
            let detail = "may not be set for ExternalName services";
            let fields = ["clusterIPs", "ipFamilies", "ipFamilyPolicy"];
            let mut errors: Errors =
                fields.into_iter().filter(set).map(|f| Error::forbidden(path.child(f), detail)).collect();
            let name = text(spec, "externalName");
            errors.extend(match name.strip_suffix('.').unwrap_or(name) {
                "" => vec![Error::required(path.child("externalName"), "")],
                name => dns_subdomain(name, &path.child("externalName")),
            });
            errors
        }
        _ => Errors::new(),
    }
}

fn one_port<'a>(port: &'a Value, named: bool, seen: &mut Vec<&'a str>, path: &Path) -> Errors {
    let name = text(port, "name");
    let mut errors = match name {
        "" if named => vec![Error::required(path.child("name"), "")],
        "" => Errors::new(),
        name => dns_label(name, &path.child("name")),
    };
    if !name.is_empty() && seen.contains(&name) {
        errors.push(Error::duplicate(path.child("name"), name));
    }
    seen.push(name);
    let n = number(port, "port").unwrap_or_default();
    errors.extend(invalid_each(&path.child("port"), n, names::port_number(n)));
    errors.extend(protocol(text(port, "protocol"), &path.child("protocol")));
    errors.extend(port_or_name(port.get("targetPort"), &path.child("targetPort")));
    if let Some(name) = get(port, "appProtocol").and_then(Value::as_str) {
        errors.extend(qualified_name(name, &path.child("appProtocol")));
    }
    errors
}

fn affinity(spec: &Value, path: &Path) -> Errors {
    let affinity = text(spec, "sessionAffinity");
    let mut errors = supported(affinity, &path.child("sessionAffinity"), &["ClientIP", "None"]);
    let path = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
    let timeout = spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").and_then(Value::as_i64);
    match timeout.filter(|_| affinity == "ClientIP") {
        Some(n) if !(1..=86400).contains(&n) => {
            errors.push(Error::invalid(path, n, "must be greater than 0 and less than 86400"));
        }
        _ => {}
    }
    errors
}

fn cluster_ips(spec: &Value, path: &Path) -> Errors {
    let (single, all) = (text(spec, "clusterIP"), texts(spec, "clusterIPs"));
    let ips = path.child("clusterIPs");
    let value = || spec.get("clusterIPs").cloned().unwrap_or_default();
    let mut errors = Errors::new();
    match (single, all.first()) {
        ("", Some(_)) => {
            errors.push(Error::invalid(ips.clone(), value(), "must be empty when `clusterIP` is not specified"));
        }
        ("", None) => {}
        (_, None) => errors.push(Error::required(ips.clone(), "")),
        (single, Some(first)) if *first != single => {
            errors.push(Error::invalid(ips.clone(), value(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    errors.extend(families(spec, path));
    let before = errors.len();
    for (i, ip) in all.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if all.len() > 1 {
                errors.push(Error::invalid(ips.clone(), value(), "'None' must be the first and only value"));
            }
            continue;
        }
        errors.extend(address::ip(ip, &ips.index(i)));
    }
    if all.len() > 2 {
        errors.push(Error::invalid(ips.clone(), value(), "may only hold up to 2 values"));
    }
    if errors.len() == before && all.len() > 1 && !address::is_dual_stack(&all) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(Error::invalid(ips.clone(), value(), detail));
    }
    if errors.len() == before && !is_headless(spec) {
        errors.extend(match_families(&all, &texts(spec, "ipFamilies"), &ips));
    }
    errors
}

fn match_families(ips: &[&str], families: &[&str], path: &Path) -> Errors {
    let pairs = ips.iter().zip(families).enumerate();
    let wrong = pairs.filter(|(_, (ip, family))| ip.contains(':') != (**family == "IPv6"));
    wrong
        .map(|(i, (ip, family))| {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            Error::invalid(path.index(i), *ip, detail)
        })
        .collect()
}

fn families(spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let families = texts(spec, "ipFamilies");
    for (i, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(i);
        errors.extend(supported(family, &path, &["IPv4", "IPv6"]));
        if families.iter().take(i).any(|f| f == family) {
            errors.push(Error::duplicate(path, *family));
        }
    }
    if let Some(policy) = get(spec, "ipFamilyPolicy").and_then(Value::as_str) {
        let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.extend(supported(policy, &path.child("ipFamilyPolicy"), &policies));
    }
    errors
}

fn port_conflicts(ports: &[Value], kind: &str, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let node_port = |port: &Value| number(port, "nodePort").unwrap_or_default();
    for (i, _) in ports.iter().enumerate().filter(|(_, p)| kind == "ClusterIP" && node_port(p) != 0) {
        let detail = "may not be used when `type` is 'ClusterIP'";
        errors.push(Error::forbidden(path.index(i).child("nodePort"), detail));
    }
    let earlier = |i: usize, port: &Value, field: &str| {
        let key = |p: &Value| (text(p, "protocol").to_owned(), number(p, field));
        ports.iter().take(i).any(|p| key(p) == key(port))
    };
    for (i, port) in ports.iter().enumerate().filter(|(_, p)| node_port(p) != 0) {
        if earlier(i, port, "nodePort") {
            errors.push(Error::duplicate(path.index(i).child("nodePort"), node_port(port)));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        if earlier(i, port, "port") {
            let key = serde_json::json!({"port": port.get("port"), "protocol": text(port, "protocol")});
            errors.push(Error::duplicate(path.index(i), key));
        }
    }
    errors
}

fn balancer(spec: &Value, path: &Path) -> Errors {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let mut errors = Errors::new();
    let ranges = texts(spec, "loadBalancerSourceRanges");
    let ranges_path = path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balanced(spec) {
        errors.push(Error::forbidden(ranges_path.clone(), only));
    }
    for (i, range) in ranges.iter().enumerate() {
        errors.extend(address::cidr(range.trim(), &ranges_path.index(i)));
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if get(spec, field).is_some() && !is_balanced(spec) {
            errors.push(Error::forbidden(path.child(field), only));
        }
    }
    if let Some(class) = get(spec, "loadBalancerClass").and_then(Value::as_str).filter(|_| is_balanced(spec)) {
        errors.extend(qualified_name(class, &path.child("loadBalancerClass")));
    }
    errors
}

fn traffic(spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let external = text(spec, "externalTrafficPolicy");
    let external_path = path.child("externalTrafficPolicy");
    if externally_accessible(spec) {
        errors.extend(supported(external, &external_path, &["Cluster", "Local"]));
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(Error::invalid(external_path, external, detail));
    }
    let health = number(spec, "healthCheckNodePort").unwrap_or_default();
    if health != 0 && !(is_balanced(spec) && external == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(Error::invalid(path.child("healthCheckNodePort"), health, detail));
    }
    if let Some(internal) = get(spec, "internalTrafficPolicy").and_then(Value::as_str) {
        errors.extend(supported(internal, &path.child("internalTrafficPolicy"), &["Cluster", "Local"]));
    }
    if let Some(distribution) = get(spec, "trafficDistribution").and_then(Value::as_str) {
        let allowed = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.extend(supported(distribution, &path.child("trafficDistribution"), &allowed));
    }
    errors
}

/// Addresses stay, except when the service stops or starts being a name only.
fn cluster_ips_kept(spec: &Value, before: &Value, path: &Path) -> Errors {
    let (now, was) = (texts(spec, "clusterIPs"), texts(before, "clusterIPs"));
    let outside = [spec, before].iter().any(|s| text(s, "type") == "ExternalName");
    if outside || (is_headless(spec) && is_headless(before)) {
        return Errors::new();
    }
    let ips = path.child("clusterIPs");
    let value = || spec.get("clusterIPs").cloned().unwrap_or_default();
    let kept = now.iter().zip(&was).enumerate().filter(|(i, _)| *i == 0 || now.len() == was.len());
    let mut errors: Errors = kept
        .filter(|(_, (now, was))| now != was)
        .map(|(i, _)| Error::invalid(ips.index(i), value(), "may not change once set"))
        .collect();
    if now.is_empty() && !was.is_empty() {
        errors.push(Error::invalid(ips.index(0), value(), "primary clusterIP can not be unset"));
    }
    if now.len() == 1 && was.len() > 1 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        let policy = spec.get("ipFamilyPolicy").cloned().unwrap_or_default();
        errors.push(Error::invalid(path.child("ipFamilyPolicy"), policy, detail));
    }
    errors
}

fn families_kept(spec: &Value, before: &Value, path: &Path) -> Errors {
    let (now, was) = (texts(spec, "ipFamilies"), texts(before, "ipFamilies"));
    let outside = [spec, before].iter().any(|s| text(s, "type") == "ExternalName" || is_headless(s));
    let changed = !now.is_empty() && now.iter().zip(&was).any(|(now, was)| now != was);
    if outside || !changed {
        return Errors::new();
    }
    let value = spec.get("ipFamilies").cloned().unwrap_or_default();
    vec![Error::invalid(path.child("ipFamilies").index(0), value, "may not change once set")]
}

fn balancer_status(new: &Document, spec: &Value) -> Errors {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = new.list_at("/status/loadBalancer/ingress");
    let mut errors = Errors::new();
    if !is_balanced(spec) && !ingress.is_empty() {
        errors.push(Error::forbidden(path.clone(), "may only be used when `spec.type` is 'LoadBalancer'"));
        return errors;
    }
    for (i, entry) in ingress.iter().enumerate() {
        let path = path.index(i);
        let (ip, host) = (text(entry, "ip"), text(entry, "hostname"));
        if !ip.is_empty() {
            errors.extend(address::ip(ip, &path.child("ip")));
        }
        if !host.is_empty() {
            errors.extend(dns_subdomain(host, &path.child("hostname")));
            if host.parse::<std::net::IpAddr>().is_ok() {
                errors.push(Error::invalid(path.child("hostname"), host, "must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}
