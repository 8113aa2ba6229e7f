//! Warnings about a PodSpec (`pkg/api/pod/warnings.go`): the ones that users meet.

use serde_json::Value;

use super::CONTAINERS;
use crate::Quantity;
use crate::tree::{get, list, map, text};

/// Node labels that have had other names since 1.14.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// The warnings, with paths under `path`.
pub(crate) fn warnings(spec: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, _) in map(get(spec, "nodeSelector")) {
        if let Some((_, new)) = OLD_LABELS.iter().find(|(old, _)| old == key) {
            let path = format!("{path}.nodeSelector[{key}]");
            warnings.push(format!("{path}: deprecated since v1.14; use \"{new}\" instead"));
        }
    }
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            warnings.push(format!("{path}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    for kind in CONTAINERS {
        for (i, container) in list(spec, kind).iter().enumerate() {
            let path = format!("{path}.{kind}[{i}]");
            warnings.extend(fractional_bytes(container, &path));
            warnings.extend(repeated_variables(container, &path));
            warnings.extend(repeated_ports(container, &path));
        }
    }
    warnings
}

fn fractional_bytes(container: &Value, path: &str) -> Vec<String> {
    let resources = get(container, "resources");
    let lists = ["requests", "limits"]
        .into_iter()
        .flat_map(|kind| map(resources.and_then(|r| get(r, kind))).map(move |(name, value)| (kind, name, value)));
    let fractional = lists.filter(|(_, name, value)| {
        let quantity = value.as_str().and_then(|text| Quantity::parse(text).ok());
        matches!(name.as_str(), "memory" | "ephemeral-storage") && quantity.is_some_and(|q| q.milli_value() % 1000 != 0)
    });
    fractional
        .map(|(kind, name, value)| {
            let shown = value.as_str().unwrap_or_default();
            format!("{path}.resources.{kind}[{name}]: fractional byte value \"{shown}\" is invalid, must be an integer")
        })
        .collect()
}

fn repeated_variables(container: &Value, path: &str) -> Vec<String> {
    let variables = list(container, "env");
    let mut warnings = Vec::new();
    for (i, variable) in variables.iter().enumerate() {
        let name = text(variable, "name");
        let earlier = variables.iter().take(i).any(|v| text(v, "name") == name);
        // `PATH=$(PATH):/more` after another PATH is meant.
        if earlier && !text(variable, "value").contains(&format!("$({name})")) {
            warnings.push(format!("{path}.env[{i}]: hides previous definition of \"{name}\", which may be unintended"));
        }
    }
    warnings
}

fn repeated_ports(container: &Value, path: &str) -> Vec<String> {
    let ports = list(container, "ports");
    let key = |port: &Value| {
        (port.get("containerPort").cloned(), text(port, "protocol").to_owned(), port.get("hostPort").cloned())
    };
    let mut warnings = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        if let Some(j) = ports.iter().take(i).position(|p| key(p) == key(port)) {
            warnings.push(format!("{path}.ports[{i}]: duplicate port definition with {path}.ports[{j}]"));
        }
    }
    warnings
}
