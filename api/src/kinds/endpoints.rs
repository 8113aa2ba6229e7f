//! Endpoints (the kind before EndpointSlice).

use serde_json::Value;

use super::cell::{self, NONE, first_three, row};
use super::{Change, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, get, items_mut, list, number, text};
use crate::validation::{address, dns_label, dns_subdomain, invalid_each, protocol, qualified_name, text as names};
use crate::{Document, Timestamp};

/// Rules of `v1 Endpoints`.
pub(super) struct Endpoints;

impl Rules for Endpoints {
    fn default(&self, endpoints: &mut Document) {
        for subset in items_mut(endpoints.value_mut(), "subsets") {
            items_mut(subset, "ports").for_each(|port| fill(port, "protocol", "TCP"));
        }
    }

    fn validate(&self, new: &Document, _change: &Change<'_>) -> Errors {
        let subsets = new.list_at("/subsets").iter().enumerate();
        subsets.flat_map(|(i, subset)| one_subset(subset, &Path::new("subsets").index(i))).collect()
    }

    fn warnings(&self, _new: &Document, _change: &Change<'_>) -> Vec<String> {
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into()]
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn cells(&self, endpoints: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let all: Vec<String> = endpoints.list_at("/subsets").iter().flat_map(pairs).collect();
        let instead = if endpoints.list_at("/subsets").is_empty() { NONE } else { "" };
        row![endpoints.name(), first_three(&all, instead), cell::age(endpoints, now)]
    }
}

/// Each address with each port.
fn pairs(subset: &Value) -> Vec<String> {
    let addresses = || list(subset, "addresses").iter().map(|a| text(a, "ip"));
    let ports = list(subset, "ports");
    if ports.is_empty() {
        return addresses().map(str::to_owned).collect();
    }
    let join = |ip: &str, port: i64| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    ports
        .iter()
        .filter_map(|p| number(p, "port"))
        .flat_map(|port| addresses().map(move |ip| join(ip, port)).collect::<Vec<_>>())
        .collect()
}

fn one_subset(subset: &Value, path: &Path) -> Errors {
    let (addresses, not_ready) = (list(subset, "addresses"), list(subset, "notReadyAddresses"));
    let mut errors = Errors::new();
    if addresses.is_empty() && not_ready.is_empty() {
        errors.push(Error::required(path.clone(), "must specify `addresses` or `notReadyAddresses`"));
    }
    for (field, list) in [("addresses", addresses), ("notReadyAddresses", not_ready)] {
        for (i, entry) in list.iter().enumerate() {
            let path = path.child(field).index(i);
            errors.extend(address::endpoint_ip(text(entry, "ip"), &path.child("ip")));
            if text(entry, "ip").parse::<std::net::IpAddr>().is_err() {
                errors.push(Error::invalid(path.child("ip"), text(entry, "ip"), "must be a valid IP address"));
            }
            if let Some(node) = get(entry, "nodeName").and_then(Value::as_str) {
                errors.extend(dns_subdomain(node, &path.child("nodeName")));
            }
            let host = text(entry, "hostname");
            if !host.is_empty() {
                errors.extend(dns_label(host, &path.child("hostname")));
            }
        }
    }
    let ports = list(subset, "ports");
    for (i, port) in ports.iter().enumerate() {
        let path = path.child("ports").index(i);
        let name = text(port, "name");
        match name {
            "" if ports.len() > 1 => errors.push(Error::required(path.child("name"), "")),
            "" => {}
            name => errors.extend(dns_label(name, &path.child("name"))),
        }
        let n = number(port, "port").unwrap_or_default();
        errors.extend(invalid_each(&path.child("port"), n, names::port_number(n)));
        errors.extend(protocol(text(port, "protocol"), &path.child("protocol")));
        if let Some(name) = get(port, "appProtocol").and_then(Value::as_str) {
            errors.extend(qualified_name(name, &path.child("appProtocol")));
        }
    }
    errors
}
