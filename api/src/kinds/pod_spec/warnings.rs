//! Warnings about a pod or a pod template (`pkg/api/pod/warnings.go`): the ones that users meet.

use serde_json::Value;

use super::CONTAINERS;
use crate::Quantity;
use crate::tree::{get, list, map, number, text};

/// Node labels that have other names now, or none.
const OLD_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// Annotations that nothing reads any more.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// Volume plugins that are deprecated.
const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// What is deprecated about a node label.
pub(crate) fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(old, _)| *old == key).map(|(_, why)| *why)
}

/// The warnings about `of`, a pod (with an empty `path`) or a template at `path`.
pub(crate) fn warnings(of: &Value, path: &str) -> Vec<String> {
    let nothing = Value::Null;
    let spec = get(of, "spec").unwrap_or(&nothing);
    let under = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
    let (path, template) = (under("spec"), !path.is_empty());
    let annotations = of.pointer("/metadata/annotations");
    let mut warnings = placement(spec, &path);
    for (key, why) in OLD_ANNOTATIONS.iter().filter(|(key, _)| annotations.is_some_and(|a| a.get(key).is_some())) {
        warnings.push(format!("{}[{key}]: {why}", under("metadata.annotations")));
    }
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        for (kind, why) in OLD_VOLUMES.iter().filter(|(kind, _)| get(volume, kind).is_some()) {
            warnings.push(format!("{path}.volumes[{i}].{kind}: {why}"));
        }
    }
    warnings.extend(repeated(list(spec, "hostAliases"), "ip", &format!("{path}.hostAliases")));
    warnings.extend(repeated(list(spec, "imagePullSecrets"), "name", &format!("{path}.imagePullSecrets")));
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            warnings.push(format!("{path}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    for name in ["memory", "ephemeral-storage"] {
        warnings.extend(fractional_bytes(get(spec, "overhead"), name, &format!("{path}.overhead")));
    }
    let annotated = |key: &str| annotations.is_some_and(|a| a.get(key).is_some());
    let notes = under("metadata.annotations");
    warnings.extend(profiles(spec, template, &annotated, &notes));
    containers(spec, &path).for_each(|(container, path)| {
        warnings.extend(resources(container, &path));
        warnings.extend(repeated_variables(container, &path));
    });
    warnings.extend(ports(spec, &path));
    if number(spec, "terminationGracePeriodSeconds").is_some_and(|n| n < 0) {
        let path = format!("{path}.terminationGracePeriodSeconds");
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings.extend(null_selectors(spec, &path));
    warnings
}

/// All containers with their paths, in upstream's order.
fn containers<'a>(spec: &'a Value, path: &'a str) -> impl Iterator<Item = (&'a Value, String)> {
    let numbered =
        move |kind| list(spec, kind).iter().enumerate().map(move |(i, c)| (c, format!("{path}.{kind}[{i}]")));
    CONTAINERS.into_iter().flat_map(numbered)
}

/// Old labels in what says where a pod may run.
fn placement(spec: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, _) in map(get(spec, "nodeSelector")) {
        warnings.extend(old_label(key).map(|why| format!("{path}.nodeSelector[{key}]: {why}")));
    }
    let affinity = format!("{path}.affinity.nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms =
        spec.pointer(&format!("/affinity/nodeAffinity/{required}")).map_or(&[][..], |r| list(r, "nodeSelectorTerms"));
    for (i, term) in terms.iter().enumerate() {
        warnings.extend(old_in_term(term, &format!("{affinity}.{required}.nodeSelectorTerms[{i}]")));
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let weighted = spec.pointer("/affinity/nodeAffinity").map_or(&[][..], |a| list(a, preferred));
    for (i, term) in weighted.iter().enumerate() {
        let term = get(term, "preference").unwrap_or(&Value::Null);
        warnings.extend(old_in_term(term, &format!("{affinity}.{preferred}[{i}].preference")));
    }
    for (i, spread) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let key = text(spread, "topologyKey");
        let path = format!("{path}.topologySpreadConstraints[{i}]");
        warnings.extend(old_label(key).map(|why| format!("{path}.topologyKey: {key} is {why}")));
        if get(spread, "labelSelector").is_none() {
            warnings.push(format!("{path}.labelSelector: {NULL_SELECTOR}"));
        }
    }
    warnings
}

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Old labels in the expressions of a node selector's term.
fn old_in_term(term: &Value, path: &str) -> Vec<String> {
    let old = |(i, expression): (usize, &Value)| {
        let key = text(expression, "key");
        old_label(key).map(|why| format!("{path}.matchExpressions[{i}].key: {key} is {why}"))
    };
    list(term, "matchExpressions").iter().enumerate().filter_map(old).collect()
}

/// Pods that no affinity term selects.
fn null_selectors(spec: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for affinity in ["podAffinity", "podAntiAffinity"] {
        let Some(of) = spec.pointer(&format!("/affinity/{affinity}")) else { continue };
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (field, inner) in [(required, ""), (preferred, "podAffinityTerm")] {
            for (i, term) in list(of, field).iter().enumerate() {
                let term = if inner.is_empty() { Some(term) } else { get(term, inner) };
                if term.is_some_and(|term| get(term, "labelSelector").is_none()) {
                    let dot = if inner.is_empty() { "" } else { "." };
                    let path = format!("{path}.affinity.{affinity}.{field}[{i}]{dot}{inner}.labelSelector");
                    warnings.push(format!("{path}: {NULL_SELECTOR}"));
                }
            }
        }
    }
    warnings
}

/// Items that have the same value as an earlier one.
fn repeated(items: &[Value], field: &str, path: &str) -> Vec<String> {
    let known = |i: usize| {
        items.iter().take(i).any(|earlier| items.get(i).is_some_and(|o| text(o, field) == text(earlier, field)))
    };
    let again = items.iter().enumerate().filter(|(i, _)| known(*i));
    again.map(|(i, item)| format!("{path}[{i}].{field}: duplicate {field} {:?}", text(item, field))).collect()
}

/// Annotations of seccomp and AppArmor without the fields that took their place.
fn profiles(spec: &Value, template: bool, annotated: &dyn Fn(&str) -> bool, notes: &str) -> Vec<String> {
    let has = |of: &Value, field: &str| of.pointer(&format!("/securityContext/{field}")).is_some_and(|v| !v.is_null());
    let mut warnings = Vec::new();
    let seccomp =
        |key: String| format!("{notes}[{key}]: non-functional in v1.27+; use the \"seccompProfile\" field instead");
    let pod = "seccomp.security.alpha.kubernetes.io/pod";
    if !has(spec, "seccompProfile") && annotated(pod) {
        warnings.push(seccomp(pod.into()));
    }
    for (container, _) in containers(spec, "") {
        let name = text(container, "name");
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if !has(container, "seccompProfile") && annotated(&key) {
            warnings.push(seccomp(key));
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        let set = has(container, "appArmorProfile") || has(spec, "appArmorProfile");
        if template && !set && annotated(&key) {
            warnings.push(format!("{notes}[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
        }
    }
    warnings
}

fn resources(container: &Value, path: &str) -> Vec<String> {
    let of = |name, kind| {
        fractional_bytes(container.pointer(&format!("/resources/{kind}")), name, &format!("{path}.resources.{kind}"))
    };
    let names = ["memory", "ephemeral-storage"].into_iter();
    names.flat_map(|name| ["limits", "requests"].into_iter().filter_map(move |kind| of(name, kind))).collect()
}

/// A warning about bytes that are no whole number.
fn fractional_bytes(resources: Option<&Value>, name: &str, path: &str) -> Option<String> {
    let shown = resources?.get(name)?.as_str()?;
    let fractional = Quantity::parse(shown).is_ok_and(|q| q.milli_value() % 1000 != 0);
    fractional.then(|| format!("{path}[{name}]: fractional byte value \"{shown}\" is invalid, must be an integer"))
}

fn repeated_variables(container: &Value, path: &str) -> Vec<String> {
    let variables = list(container, "env");
    let mut warnings = Vec::new();
    for (i, variable) in variables.iter().enumerate() {
        let name = text(variable, "name");
        let earlier = variables.iter().take(i).any(|v| text(v, "name") == name);
        // `PATH=$(PATH):/more` after another PATH is meant.
        let reference = format!("$({name})");
        let value = text(variable, "value");
        let meant = get(variable, "valueFrom").is_none() && value != reference && value.contains(&reference);
        if earlier && !meant {
            let why = "which may be dropped when using apply";
            warnings.push(format!("{path}.env[{i}]: hides previous definition of \"{name}\", {why}"));
        }
    }
    warnings
}

/// Ports of all containers of a pod that clash.
fn ports(spec: &Value, path: &str) -> Vec<String> {
    let all: Vec<(&Value, String)> = containers(spec, path)
        .flat_map(|(container, path)| {
            list(container, "ports").iter().enumerate().map(move |(i, port)| (port, format!("{path}.ports[{i}]")))
        })
        .collect();
    let mut warnings = Vec::new();
    for (i, (port, at)) in all.iter().enumerate() {
        if !text(port, "hostIP").is_empty() && host_port(port) == 0 {
            warnings.push(format!("{at}: hostIP set without hostPort: {}", shown(port)));
        }
        for (other, there) in all.iter().take(i) {
            warnings.extend(clash(port, other).map(|how| format!("{at}: {how} with {there}")));
        }
    }
    for (i, (port, at)) in all.iter().enumerate().filter(|(_, (port, _))| !text(port, "name").is_empty()) {
        let name = text(port, "name");
        if let Some((_, there)) = all.iter().take(i).find(|(other, _)| text(other, "name") == name) {
            let use_of = format!("services and probes that select ports by name will use {there}");
            warnings.push(format!("{at}: duplicate port name {name:?} with {there}, {use_of}"));
        }
    }
    warnings
}

fn host_port(port: &Value) -> i64 {
    number(port, "hostPort").unwrap_or_default()
}

/// A port as Go's `%+v` shows it.
fn shown(port: &Value) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        text(port, "name"),
        host_port(port),
        number(port, "containerPort").unwrap_or_default(),
        text(port, "protocol"),
        text(port, "hostIP"),
    )
}

fn clash(port: &Value, other: &Value) -> Option<&'static str> {
    let same = |field: &str| port.get(field) == other.get(field);
    if !same("containerPort") || text(port, "protocol") != text(other, "protocol") {
        return None;
    }
    let (ip, other_ip) = (text(port, "hostIP"), text(other, "hostIP"));
    let (host, other_host) = (host_port(port), host_port(other));
    if ip == other_ip && host == other_host {
        Some("duplicate port definition")
    } else if host == 0 || other_host == 0 {
        Some("overlapping port definition")
    } else if host == other_host && (ip.is_empty() != other_ip.is_empty()) {
        Some("dangerously ambiguous port definition")
    } else {
        None
    }
}
