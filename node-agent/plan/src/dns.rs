//! The cluster's DNS records, from services and their slices (Kubernetes' DNS specification 1.1.0).

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::k8s_openapi::api::core::v1::{Service, ServicePort};
use api::k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::services::cluster_ips;

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Data {
    Address(IpAddr),
    Service { port: u16, target: String },
    Alias(String),
    Pointer(String),
}

/// Every record of a cluster, by lower-case name without the last dot.
pub type Records = BTreeMap<String, Vec<Data>>;

/// The records below `domain` (`cluster.local`), and those of the reverse zones.
pub fn records(services: &[Service], slices: &[EndpointSlice], domain: &str) -> Records {
    let mut out = Table { domain: domain.to_ascii_lowercase(), records: Records::new() };
    for service in services {
        let (Some(name), Some(namespace)) = (&service.metadata.name, &service.metadata.namespace) else { continue };
        let own = slices.iter().filter(|s| {
            let label = s.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
            s.metadata.namespace.as_ref() == Some(namespace) && label == Some(name)
        });
        out.service(service, &format!("{name}.{namespace}.svc.{}", out.domain), &own.collect::<Vec<_>>());
    }
    out.records.values_mut().for_each(|list| {
        list.sort();
        list.dedup();
    });
    out.records
}

struct Table {
    domain: String,
    records: Records,
}

impl Table {
    fn add(&mut self, name: String, data: Data) {
        self.records.entry(name.to_ascii_lowercase()).or_default().push(data);
    }

    fn service(&mut self, service: &Service, name: &str, slices: &[&EndpointSlice]) {
        let Some(spec) = &service.spec else { return };
        if spec.type_.as_deref() == Some("ExternalName") {
            if let Some(target) = &spec.external_name {
                self.add(name.into(), Data::Alias(target.trim_end_matches('.').to_ascii_lowercase()));
            }
            return;
        }
        let ips = cluster_ips(spec);
        if ips.is_empty() {
            let unready = spec.publish_not_ready_addresses == Some(true);
            return slices.iter().for_each(|slice| self.headless(slice, name, unready));
        }
        for ip in ips {
            self.add(name.into(), Data::Address(ip));
            self.add(reverse(ip), Data::Pointer(name.into()));
        }
        for port in spec.ports.iter().flatten() {
            self.srv(name, port.name.as_deref(), port.protocol.as_deref(), number(port), name);
        }
    }

    /// A headless service's name has its endpoints' addresses, and each endpoint has a name of its own.
    fn headless(&mut self, slice: &EndpointSlice, name: &str, unready: bool) {
        for endpoint in slice.endpoints.iter().flatten().filter(|e| unready || ready(e)) {
            for ip in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
                let host = format!("{}.{name}", host_of(endpoint, ip));
                self.add(name.into(), Data::Address(ip));
                self.add(host.clone(), Data::Address(ip));
                if endpoint.hostname.is_some() {
                    self.add(reverse(ip), Data::Pointer(host.clone()));
                }
                for port in slice.ports.iter().flatten() {
                    let number = port.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
                    self.srv(name, port.name.as_deref(), port.protocol.as_deref(), number, &host);
                }
            }
        }
    }

    /// `_port._protocol.service`, for named ports.
    fn srv(&mut self, name: &str, port: Option<&str>, protocol: Option<&str>, number: u16, target: &str) {
        let Some(port) = port.filter(|p| !p.is_empty()) else { return };
        let protocol = protocol.unwrap_or("TCP");
        self.add(format!("_{port}._{protocol}.{name}"), Data::Service { port: number, target: target.into() });
    }
}

fn number(port: &ServicePort) -> u16 {
    u16::try_from(port.port).unwrap_or(0)
}

fn ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false)
}

/// Its hostname, or its address with dashes.
fn host_of(endpoint: &Endpoint, ip: IpAddr) -> String {
    endpoint.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| ip.to_string().replace(['.', ':'], "-"))
}

/// The name of an address in the reverse zones.
pub fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = ip.octets().iter().rev().flat_map(|byte| [byte & 15, byte >> 4]).collect::<Vec<_>>();
            digits.iter().map(|d| format!("{d:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}
