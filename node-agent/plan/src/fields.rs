//! The downward API: fields of the pod and resources of its containers as text.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::member::member;
use crate::qos::quantity_of;
use crate::status::NodeFacts;

/// What the downward API can tell beyond the object.
#[derive(Clone, Debug, Default)]
pub struct Downward<'a> {
    /// The node: its addresses are `status.hostIP`.
    pub node: NodeFacts,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// Allocatable amounts: a container without a limit may use all of them.
    pub allocatable: Option<&'a BTreeMap<String, String>>,
}

/// The value of a `fieldRef`, in an environment variable or a file. Labels and annotations as a whole are files only.
pub fn field(pod: &Pod, path: &str, facts: &Downward<'_>) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        return mapped(pod, map, key).ok_or_else(|| unsupported(path));
    }
    let joined = |ips: Vec<String>| ips.join(",");
    let host_ips: Vec<String> = facts.node.ips.iter().map(ToString::to_string).collect();
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => listed(meta.labels.as_ref()),
        "metadata.annotations" => listed(meta.annotations.as_ref()),
        "spec.nodeName" => text(&spec.node_name),
        "spec.serviceAccountName" => text(&spec.service_account_name),
        "status.hostIP" => host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => joined(host_ips),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => joined(facts.pod_ips.clone()),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> String {
    format!("unsupported fieldPath: {path}")
}

/// `metadata.labels['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn mapped(pod: &Pod, map: &str, key: &str) -> Option<String> {
    let map = match map {
        "metadata.labels" => &pod.metadata.labels,
        "metadata.annotations" => &pod.metadata.annotations,
        _ => return None,
    };
    Some(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default())
}

/// One `key="value"` a line, sorted by key, values quoted as Go quotes them.
fn listed(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", quoted(v))).collect();
    lines.join("\n")
}

/// Text in double quotes as Go's `%q` writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a `resourceFieldRef`: the amount divided by the divisor, rounded up.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &Downward<'_>,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let found = named.and_then(|name| member(pod, name)).map(|m| m.container.into_owned());
    let container = match (named, found, own) {
        (Some(_), Some(found), _) => found,
        (None, _, Some(own)) => own.clone(),
        (name, ..) => return Err(format!("container {} not found", name.unwrap_or_default())),
    };
    let cpu = selector.resource.ends_with(".cpu");
    let amount = amount(&container, &selector.resource, facts)
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let divisor = selector.divisor.as_ref().and_then(|d| api::Quantity::parse(&d.0).ok());
    let divisor = divisor.filter(|d| !d.is_zero()).unwrap_or_else(|| api::Quantity::new(1, amount.format()));
    let (amount, divisor) = match cpu {
        true => (amount.milli_value(), divisor.milli_value()),
        false => (amount.value(), divisor.value()),
    };
    Ok(divided_up(amount, divisor).to_string())
}

fn divided_up(amount: i64, divisor: i64) -> i64 {
    let divisor = divisor.max(1);
    amount / divisor + i64::from(amount % divisor != 0)
}

/// A limit that is absent is what the node has; a request that is absent is nought.
fn amount(container: &Container, resource: &str, facts: &Downward<'_>) -> Option<api::Quantity> {
    let (list, name) = resource.split_once('.')?;
    let resources = container.resources.clone().unwrap_or_default();
    let zero = || api::Quantity::new(0, api::quantity::QuantityFormat::DecimalSi);
    match list {
        "limits" => {
            let most = || facts.allocatable.and_then(|a| a.get(name)).and_then(|t| api::Quantity::parse(t).ok());
            quantity_of(&resources.limits, name).or_else(most).or_else(|| Some(zero()))
        }
        "requests" => Some(quantity_of(&resources.requests, name).unwrap_or_else(zero)),
        _ => None,
    }
}
