//! What may stand in the kinds of `networking.k8s.io` (`pkg/apis/networking/validation`).

use serde_json::Value;

use super::super::Change;
use super::super::rule::{Must, Rule, check, keep};
use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, number, text};
use crate::validation::text::{label, port_name, port_number, subdomain, wildcard_subdomain};
use crate::validation::{address, domain_prefixed_path, invalid_each};

const INGRESS: &[Rule] = &[
    Rule("spec", Must::Hold(some_backend)),
    Rule("spec!.defaultBackend", Must::Pass(backend)),
    Rule("spec!.rules[*].host", Must::Pass(host)),
    Rule("spec!.rules[*].http.paths", Must::Be("")),
    Rule("spec!.rules[*].http.paths[*]", Must::Pass(ingress_path)),
    Rule("spec!.tls[*].hosts[*]", Must::Pass(tls_host)),
    Rule("spec!.tls[*].secretName", Must::Maybe(subdomain)),
    Rule("spec!.ingressClassName", Must::Read(subdomain)),
];

/// An Ingress.
pub(super) fn ingress(new: &Document, change: &Change<'_>) -> Errors {
    let mut errors = check(INGRESS, new);
    let annotated = new.annotation("kubernetes.io/ingress.class").filter(|_| change.old.is_none());
    if let (Some(annotated), Some(class)) = (annotated, new.at("/spec/ingressClassName").and_then(Value::as_str))
        && annotated != class
    {
        let path = Path::new("annotations").child("kubernetes.io/ingress.class");
        errors.push(Error::invalid(path, annotated, "must match `ingressClassName` when both are specified"));
    }
    errors
}

fn some_backend(spec: &Value, path: &Path) -> Errors {
    if !list(spec, "rules").is_empty() || get(spec, "defaultBackend").is_some() {
        return Errors::new();
    }
    let detail = "either `defaultBackend` or `rules` must be specified";
    vec![Error::invalid(path.clone(), spec.get("rules").cloned().unwrap_or_default(), detail)]
}

fn host(host: &Value, path: &Path) -> Errors {
    let host = host.as_str().unwrap_or_default();
    let mut errors = Errors::new();
    if host.parse::<std::net::IpAddr>().is_ok() {
        errors.push(Error::invalid(path.clone(), host, "must be a DNS name, not an IP address"));
    }
    if !host.is_empty() {
        errors.extend(names(host, path));
    }
    errors
}

fn tls_host(host: &Value, path: &Path) -> Errors {
    names(host.as_str().unwrap_or_default(), path)
}

fn names(host: &str, path: &Path) -> Errors {
    let messages = if host.contains('*') { wildcard_subdomain(host) } else { subdomain(host) };
    invalid_each(path, host, messages)
}

/// What a path of an Exact or Prefix rule may not have.
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];

fn ingress_path(of: &Value, path: &Path) -> Errors {
    let at = path.child("path");
    let bad = |detail: String| Error::invalid(at.clone(), text(of, "path"), detail);
    let given = text(of, "path");
    let mut errors = Errors::new();
    match get(of, "pathType").and_then(Value::as_str) {
        None => return vec![Error::required(path.child("pathType"), "pathType must be specified")],
        Some("Exact" | "Prefix") => {
            if !given.starts_with('/') {
                errors.push(bad("must be an absolute path".into()));
            }
            let parts = BAD_PARTS.iter().filter(|part| given.contains(**part));
            errors.extend(parts.map(|part| bad(format!("must not contain '{part}'"))));
            let ends = BAD_ENDS.iter().filter(|end| given.ends_with(**end));
            errors.extend(ends.map(|end| bad(format!("cannot end with '{end}'"))));
        }
        Some("ImplementationSpecific") if given.is_empty() || given.starts_with('/') => {}
        Some("ImplementationSpecific") => errors.push(bad("must be an absolute path".into())),
        Some(other) => {
            let allowed = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(Error::not_supported(path.child("pathType"), other, &allowed));
        }
    }
    errors.extend(backend(get(of, "backend").unwrap_or(&Value::Null), &path.child("backend")));
    errors
}

fn backend(backend: &Value, path: &Path) -> Errors {
    let bad = |detail: &str| vec![Error::invalid(path.clone(), "", detail)];
    match (get(backend, "resource"), get(backend, "service")) {
        (Some(_), Some(_)) => bad("cannot set both resource and service backends"),
        (Some(resource), None) => reference(resource, &path.child("resource")),
        (None, Some(service)) => service_backend(service, path),
        (None, None) => bad("resource or service backend is required"),
    }
}

fn service_backend(service: &Value, path: &Path) -> Errors {
    let at = path.child("service");
    let mut errors = match text(service, "name") {
        "" => vec![Error::required(at.child("name"), "")],
        name => invalid_each(&at.child("name"), name, label(name)),
    };
    let port = get(service, "port").unwrap_or(&Value::Null);
    let at = at.child("port");
    match (text(port, "name"), number(port, "number").unwrap_or_default()) {
        ("", 0) => errors.push(Error::required(path.clone(), "port name or number is required")),
        ("", number) => errors.extend(invalid_each(&at.child("number"), number, port_number(number))),
        (name, 0) => errors.extend(invalid_each(&at.child("name"), name, port_name(name))),
        _ => errors.push(Error::invalid(path.clone(), "", "cannot set both port name & port number")),
    }
    errors
}

/// A reference to an object of any kind.
fn reference(of: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(group) = get(of, "apiGroup").and_then(Value::as_str) {
        errors.extend(invalid_each(&path.child("apiGroup"), group, subdomain(group)));
    }
    for field in ["kind", "name"] {
        errors.extend(match text(of, field) {
            "" => vec![Error::required(path.child(field), "")],
            given => invalid_each(&path.child(field), given, crate::validation::text::path_segment(given, false)),
        });
    }
    errors
}

const INGRESS_CLASS: &[Rule] =
    &[Rule("spec!.controller", Must::Hold(controller)), Rule("spec!.parameters", Must::Pass(parameters))];

/// An `IngressClass`.
pub(super) fn ingress_class(new: &Document, change: &Change<'_>) -> Errors {
    let mut errors = keep(&["spec.controller"], true, new, change);
    // What is not there is an empty text in Go.
    errors.iter_mut().filter(|e| e.value.is_null()).for_each(|e| e.value = "".into());
    errors.extend(check(INGRESS_CLASS, new));
    errors
}

fn controller(controller: &Value, path: &Path) -> Errors {
    let controller = controller.as_str().unwrap_or_default();
    let mut errors = Errors::new();
    if controller.len() > 250 {
        errors.push(Error::too_long(path.clone(), 250));
    }
    errors.extend(domain_prefixed_path(controller, path));
    errors
}

fn parameters(of: &Value, path: &Path) -> Errors {
    let mut errors = reference(of, path);
    let at = path.child("namespace");
    let namespace = get(of, "namespace").and_then(Value::as_str);
    match (get(of, "scope").and_then(Value::as_str), namespace) {
        (Some("Namespace"), None) => errors.push(Error::required(at, "`parameters.scope` is set to 'Namespace'")),
        (Some("Namespace"), Some(namespace)) => errors.extend(invalid_each(&at, namespace, label(namespace))),
        (Some("Cluster"), Some(_)) => errors.push(Error::forbidden(at, "`parameters.scope` is set to 'Cluster'")),
        (Some("Cluster"), None) => {}
        (None, _) => errors.push(Error::required(path.child("scope"), "")),
        (Some(other), _) => {
            errors.push(Error::not_supported(path.child("scope"), other, &["Cluster", "Namespace"]));
        }
    }
    errors
}

const NETWORK_POLICY: &[Rule] = &[
    Rule("spec!.podSelector", Must::Selector),
    Rule("spec!.ingress[*].ports[*]", Must::Pass(policy_port)),
    Rule("spec!.ingress[*].from[*]", Must::Pass(peer)),
    Rule("spec!.egress[*].ports[*]", Must::Pass(policy_port)),
    Rule("spec!.egress[*].to[*]", Must::Pass(peer)),
    Rule("spec!.policyTypes[*]", Must::Within(&["Ingress", "Egress"])),
];

/// A `NetworkPolicy`.
pub(super) fn network_policy(new: &Document, _: &Change<'_>) -> Errors {
    check(NETWORK_POLICY, new)
}

fn policy_port(port: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(protocol) = get(port, "protocol").filter(|p| !matches!(p.as_str(), Some("TCP" | "UDP" | "SCTP"))) {
        errors.push(Error::not_supported(path.child("protocol"), protocol.clone(), &["TCP", "UDP", "SCTP"]));
    }
    let (at, end) = (path.child("endPort"), number(port, "endPort"));
    match (get(port, "port"), end) {
        (Some(Value::Number(first)), end) => {
            let first = first.as_i64().unwrap_or_default();
            errors.extend(invalid_each(&path.child("port"), first, port_number(first)));
            if let Some(end) = end {
                if end < first {
                    errors.push(Error::invalid(at.clone(), end, "must be greater than or equal to `port`"));
                }
                errors.extend(invalid_each(&at, end, port_number(end)));
            }
        }
        (Some(name), end) => {
            if let Some(end) = end {
                errors.push(Error::invalid(at, end, "may not be specified when `port` is non-numeric"));
            }
            let name = name.as_str().unwrap_or_default();
            errors.extend(invalid_each(&path.child("port"), name, port_name(name)));
        }
        (None, Some(end)) => errors.push(Error::invalid(at, end, "may not be specified when `port` is not specified")),
        (None, None) => {}
    }
    errors
}

fn peer(peer: &Value, path: &Path) -> Errors {
    let block = get(peer, "ipBlock");
    let selectors = ["podSelector", "namespaceSelector"].into_iter().filter(|f| get(peer, f).is_some());
    let count = selectors.clone().count();
    let mut errors: Errors = selectors
        .flat_map(|field| crate::validation::labels::label_selector(peer.get(field), &path.child(field)))
        .collect();
    errors.extend(block.map(|block| ip_block(block, &path.child("ipBlock"))).unwrap_or_default());
    if count == 0 && block.is_none() {
        errors.push(Error::required(path.clone(), "must specify a peer"));
    } else if count > 0 && block.is_some() {
        errors.push(Error::forbidden(path.clone(), "may not specify both ipBlock and another peer"));
    }
    errors
}

fn ip_block(block: &Value, path: &Path) -> Errors {
    let cidr = text(block, "cidr");
    if cidr.is_empty() {
        return vec![Error::required(path.child("cidr"), "")];
    }
    let mut errors = address::cidr(cidr, &path.child("cidr"));
    for (i, except) in list(block, "except").iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("except").index(i);
        errors.extend(address::cidr(except, &path));
        if address::contains(cidr, except) == Some(false) {
            errors.push(Error::invalid(path, except, "must be a strict subset of `cidr`"));
        }
    }
    errors
}

const IP_ADDRESS: &[Rule] = &[
    Rule("spec!.parentRef", Must::Be("")),
    Rule("spec!.parentRef.resource", Must::Be("")),
    Rule("spec!.parentRef.name", Must::Be("")),
];

/// An `IPAddress`.
pub(super) fn ip_address(new: &Document, change: &Change<'_>) -> Errors {
    let mut errors = match new.name().parse::<std::net::IpAddr>() {
        Ok(ip) if ip.to_string() == new.name() => Errors::new(),
        Ok(ip) => {
            let detail = format!("must be in canonical form ({:?})", ip.to_string());
            vec![Error::invalid(Path::new("metadata").child("name"), new.name(), detail)]
        }
        Err(_) => address::ip(new.name(), &Path::new("metadata").child("name")),
    };
    errors.extend(check(IP_ADDRESS, new));
    errors.extend(keep(&["spec.parentRef"], true, new, change));
    errors
}

const SERVICE_CIDR: &[Rule] =
    &[Rule("spec!.cidrs", Must::Be("at least one CIDR required")), Rule("spec!.cidrs[*]", Must::Cidr)];

/// A `ServiceCIDR`: its networks stay.
pub(super) fn service_cidr(new: &Document, change: &Change<'_>) -> Errors {
    match change.old {
        None => check(SERVICE_CIDR, new),
        Some(_) => keep(&["spec.cidrs"], true, new, change),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{INGRESS, INGRESS_CLASS, IP_ADDRESS, NETWORK_POLICY, SERVICE_CIDR};
    use crate::Document;
    use crate::kinds::tests::{create, update};
    use crate::kinds::{NameFormat, Rules};
    use serde_json::{Value, json};

    #[test]
    fn an_address_is_named_as_it_is_written() {
        assert_eq!(IP_ADDRESS.name_format(), NameFormat::PathSegment);
        let named = |name: &str| {
            let parent = json!({"resource": "services", "name": "s"});
            Document::new(json!({"metadata": {"name": name}, "spec": {"parentRef": parent}})).unwrap_or_default()
        };
        assert_eq!(create(&IP_ADDRESS, named("fe80::1")), Vec::<String>::new());
        let detail = "must be in canonical form (\"fe80::1\")";
        assert_eq!(
            create(&IP_ADDRESS, named("fe80:0::1")),
            [format!("metadata.name: Invalid value: \"fe80:0::1\": {detail}")]
        );
    }

    fn with(spec: Value) -> Document {
        Document::new(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap_or_default()
    }

    #[test]
    fn an_ingress_says_where_requests_go() {
        let path = |path: Value| json!({"rules": [{"host": "a.b", "http": {"paths": [path]}}]});
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let good = json!({"path": "/", "pathType": "Prefix", "backend": backend});
        assert_eq!(create(&INGRESS, with(path(good))), Vec::<String>::new());
        assert_eq!(
            create(&INGRESS, with(json!({}))),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        let at = "spec.rules[0].http.paths[0]";
        let bad = json!({"path": "/a//b/..", "pathType": "Exact", "backend": {"service": {"name": "s"}}});
        assert_eq!(
            create(&INGRESS, with(path(bad))),
            [
                format!("{at}.path: Invalid value: \"/a//b/..\": must not contain '//'"),
                format!("{at}.path: Invalid value: \"/a//b/..\": cannot end with '/..'"),
                format!("{at}.backend: Required value: port name or number is required"),
            ]
        );
    }

    #[test]
    fn a_class_keeps_its_controller() {
        let class = |controller: &str| with(json!({ "controller": controller }));
        assert_eq!(create(&INGRESS_CLASS, class("a.b/c")), Vec::<String>::new());
        assert_eq!(create(&INGRESS_CLASS, class("")), ["spec.controller: Required value"]);
        let (_, errors) = update(&INGRESS_CLASS, "", class("a.b/d"), class("a.b/c"));
        assert_eq!(errors, ["spec.controller: Invalid value: \"a.b/d\": field is immutable"]);
    }

    #[test]
    fn peers_and_networks_are_checked() {
        let from = |peer: Value| with(json!({"podSelector": {}, "ingress": [{"from": [peer]}]}));
        assert_eq!(create(&NETWORK_POLICY, from(json!({"podSelector": {}}))), Vec::<String>::new());
        assert_eq!(
            create(&NETWORK_POLICY, from(json!({}))),
            ["spec.ingress[0].from[0]: Required value: must specify a peer"]
        );
        let block = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "10.1.0.0/16"]}});
        assert_eq!(
            create(&NETWORK_POLICY, from(block)),
            [
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"
            ]
        );
        assert_eq!(create(&SERVICE_CIDR, with(json!({}))), ["spec.cidrs: Required value: at least one CIDR required"]);
    }
}
