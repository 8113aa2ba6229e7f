//! EndpointSlice.

use serde_json::Value;

use super::cell::{self, UNSET, first_three, row};
use super::{Change, Operation, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, get, items_mut, list, number, text, texts};
use crate::validation::text::label_value;
use crate::validation::{
    address, dns_label, dns_subdomain, immutable, invalid_each, one_of, protocol, qualified_name, same,
};
use crate::{Document, Timestamp};

/// Rules of `discovery.k8s.io/v1 EndpointSlice`.
pub(super) struct EndpointSlice;

impl Rules for EndpointSlice {
    fn default(&self, slice: &mut Document) {
        for port in items_mut(slice.value_mut(), "ports") {
            if get(port, "name").is_none() {
                fill(port, "name", "");
            }
            fill(port, "protocol", "TCP");
        }
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        let Some(old) = change.old.filter(|_| change.operation == Operation::Update) else { return };
        let generation = |doc: &Document| doc.i64_at("/metadata/generation").unwrap_or_default();
        let relabelled = !same(new.at("/metadata/labels"), old.at("/metadata/labels"));
        if relabelled && generation(new) == generation(old) {
            new.set("/metadata/generation", generation(old) + 1);
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let kind = new.str_at("/addressType");
        let path = Path::new("addressType");
        let mut errors = one_of(kind, &path, &["FQDN", "IPv4", "IPv6"]);
        errors.extend(ports(new.list_at("/ports"), &Path::new("ports")));
        errors.extend(endpoints(new.list_at("/endpoints"), kind, &Path::new("endpoints")));
        if let Some(old) = change.old {
            // Upstream shows no value here.
            let changed = immutable(new.at("/addressType"), old.at("/addressType"), &path);
            errors.extend(changed.into_iter().map(|error| Error { value: Value::Null, ..error }));
        }
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, slice: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let port = |port: &Value| match number(port, "port") {
            Some(number) => number.to_string(),
            None => get(port, "name").map_or("*", |_| text(port, "name")).to_owned(),
        };
        let ports: Vec<String> = slice.list_at("/ports").iter().map(port).collect();
        let addresses: Vec<String> =
            slice.list_at("/endpoints").iter().flat_map(|e| texts(e, "addresses")).map(str::to_owned).collect();
        row![
            slice.name(),
            slice.str_at("/addressType"),
            first_three(&ports, UNSET),
            first_three(&addresses, UNSET),
            cell::age(slice, now),
        ]
    }
}

fn ports(ports: &[Value], path: &Path) -> Errors {
    if ports.len() > 20_000 {
        return vec![Error::too_many(path.clone(), ports.len(), 20_000)];
    }
    let mut errors = Errors::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.extend(dns_label(name, &path.child("name")));
        }
        if ports.iter().take(i).any(|p| text(p, "name") == name) {
            errors.push(Error::duplicate(path.child("name"), name));
        }
        errors.extend(protocol(text(port, "protocol"), &path.child("protocol")));
        if let Some(name) = get(port, "appProtocol").and_then(Value::as_str) {
            errors.extend(qualified_name(name, &path.child("appProtocol")));
        }
    }
    errors
}

fn endpoints(endpoints: &[Value], kind: &str, path: &Path) -> Errors {
    if endpoints.len() > 1000 {
        return vec![Error::too_many(path.clone(), endpoints.len(), 1000)];
    }
    let each = endpoints.iter().enumerate();
    each.flat_map(|(i, endpoint)| one_endpoint(endpoint, kind, &path.index(i))).collect()
}

fn one_endpoint(endpoint: &Value, kind: &str, path: &Path) -> Errors {
    let addresses_path = path.child("addresses");
    let addresses = list(endpoint, "addresses");
    let mut errors = match addresses.len() {
        0 => vec![Error::required(addresses_path.clone(), "")],
        n if n > 100 => vec![Error::too_many(addresses_path.clone(), n, 100)],
        _ => Errors::new(),
    };
    for (i, address) in texts(endpoint, "addresses").iter().enumerate() {
        errors.extend(one_address(address, kind, &addresses_path, i));
    }
    for (field, rule) in [("nodeName", dns_subdomain as fn(&str, &Path) -> Errors), ("hostname", dns_label)] {
        if let Some(name) = get(endpoint, field).and_then(Value::as_str) {
            errors.extend(rule(name, &path.child(field)));
        }
    }
    let zones = endpoint.get("hints").map_or(&[][..], |hints| list(hints, "forZones"));
    for (i, zone) in zones.iter().enumerate() {
        let path = path.child("hints").child("forZones").index(i).child("name");
        let name = text(zone, "name");
        errors.extend(match name {
            "" => vec![Error::required(path, "")],
            name => invalid_each(&path, name, label_value(name)),
        });
    }
    errors
}

fn one_address(address: &str, kind: &str, path: &Path, i: usize) -> Errors {
    let item = path.index(i);
    if kind == "FQDN" {
        return dns_subdomain(address.strip_suffix('.').unwrap_or(address), &item);
    }
    let mut errors = address::ip(address, &item);
    if errors.is_empty() && address.contains(':') != (kind == "IPv6") {
        errors.push(Error::invalid(path.clone(), address, format!("must be an {kind} address")));
    }
    if errors.is_empty() {
        errors.extend(address::endpoint_ip(address, &item));
    }
    errors
}
