//! Resource names, quantities and requirements.

use serde_json::Value;

use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, map, text};
use crate::validation::{dns_label, qualified_name};
use crate::{Quantity, validation};

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// What quotas call that which pods use.
pub(crate) const OF_PODS: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// And that which other objects are counted by.
const OF_OTHERS: [&str; 10] = [
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Who asks for resources: names differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Container,
    Pod,
}

/// A ResourceRequirements. `claims` are the names of the pod's resource claims.
pub(super) fn requirements(value: Option<&Value>, path: &Path, asker: Asker, claims: &[&str]) -> Errors {
    let Some(value) = value else { return Errors::new() };
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    let mut errors = Errors::new();
    for (name, quantity) in map(get(value, "limits")) {
        errors.extend(resource(name, quantity, &limits.key(name), asker));
    }
    for (name, quantity) in map(get(value, "requests")) {
        errors.extend(resource(name, quantity, &requests.key(name), asker));
        errors.extend(against_limit(name, quantity, value, &requests, &limits));
    }
    let names = || map(get(value, "limits")).chain(map(get(value, "requests"))).map(|(name, _)| name.as_str());
    if names().any(is_huge_pages) && !names().any(|n| matches!(n, "cpu" | "memory")) {
        errors.push(Error::forbidden(path.clone(), "HugePages require cpu or memory"));
    }
    errors.extend(claim_names(list(value, "claims"), &path.child("claims"), claims));
    errors
}

fn against_limit(name: &str, request: &Value, value: &Value, requests: &Path, limits: &Path) -> Errors {
    let parse = |v: &Value| Quantity::parse(v.as_str().unwrap_or_default()).unwrap_or_default();
    let request = parse(request);
    let overcommit = !name.contains('/') && !is_huge_pages(name);
    let limit = get(value, "limits").and_then(|limits| limits.get(name)).map(parse);
    let relation = match limit {
        Some(ref limit) if !overcommit && request != *limit => "equal to",
        Some(ref limit) if request > *limit => "less than or equal to",
        None if !overcommit => {
            return vec![Error::required(limits.clone(), "Limit must be set for non overcommitable resources")];
        }
        _ => return Errors::new(),
    };
    let detail = format!("must be {relation} {name} limit of {}", limit.unwrap_or_default());
    vec![Error::invalid(requests.clone(), request.to_string(), detail)]
}

/// Pages of some size.
pub(crate) fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn resource(name: &str, quantity: &Value, path: &Path, asker: Asker) -> Errors {
    let mut errors = match asker {
        Asker::Container => container_name(name, path),
        Asker::Pod => pod_name(name, path),
    };
    errors.extend(quantity_value(name, quantity, path));
    errors
}

/// The name of a resource anywhere.
pub(crate) fn resource_name(name: &str, path: &Path) -> Errors {
    let errors = qualified_name(name, path);
    let standard = OF_PODS.contains(&name) || OF_OTHERS.contains(&name) || is_huge_pages(name);
    if errors.is_empty() && !name.contains('/') && !standard {
        return vec![Error::invalid(path.clone(), name, "must be a standard resource type or fully qualified")];
    }
    errors
}

/// The name of a resource of containers.
pub(crate) fn container_name(name: &str, path: &Path) -> Errors {
    let mut errors = resource_name(name, path);
    if !name.contains('/') && !CONTAINER.contains(&name) && !is_huge_pages(name) {
        errors.push(Error::invalid(path.clone(), name, "must be a standard resource for containers"));
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(path.clone(), name, "doesn't follow extended resource name standard"));
    }
    errors
}

/// Without a domain, or of Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A resource that somebody else counts (`helper.IsExtendedResourceName`).
pub(crate) fn is_extended(name: &str) -> bool {
    let quota = || validation::text::qualified_name(&format!("requests.{name}"));
    !is_native(name) && !name.starts_with("requests.") && quota().is_empty()
}

fn pod_name(name: &str, path: &Path) -> Errors {
    let errors = resource_name(name, path);
    if errors.is_empty() && !matches!(name, "cpu" | "memory") && !is_huge_pages(name) {
        return vec![Error::not_supported(path.clone(), name, &["cpu", "hugepages-", "memory"])];
    }
    errors
}

/// A quantity of a resource: not negative, and whole where only whole ones make sense.
pub(crate) fn quantity_value(name: &str, quantity: &Value, path: &Path) -> Errors {
    let shown = quantity.as_str().unwrap_or_default();
    let parsed = Quantity::parse(shown).unwrap_or_default();
    let mut errors = Errors::new();
    if parsed.sign() < 0 {
        errors.push(Error::invalid(path.clone(), shown, "must be greater than or equal to 0"));
    }
    let countable = matches!(
        name,
        "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    );
    let extended = name.contains('/') && !name.contains("kubernetes.io/");
    if (countable || extended) && parsed.milli_value() % 1000 != 0 {
        errors.push(Error::invalid(path.clone(), shown, "must be an integer"));
    }
    errors
}

fn claim_names(claims: &[Value], path: &Path, known: &[&str]) -> Errors {
    let mut errors = Errors::new();
    let mut seen: Vec<String> = Vec::new();
    for (i, claim) in claims.iter().enumerate() {
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        let path = path.index(i);
        if name.is_empty() {
            errors.push(Error::required(path, ""));
            continue;
        }
        if !request.is_empty() {
            errors.extend(dns_label(request, &path.child("request")));
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        let overlaps = |s: &String| {
            *s == key || *s == name || (request.is_empty() && s.strip_prefix(name).is_some_and(|r| r.starts_with('/')))
        };
        if seen.iter().any(overlaps) {
            errors.push(Error::duplicate(path.clone(), key.as_str()));
        }
        seen.push(key);
        if !known.contains(&name) {
            errors.push(unknown_claim(name, path, known));
        }
    }
    errors
}

fn unknown_claim(name: &str, path: Path, known: &[&str]) -> Error {
    let mut known = known.to_vec();
    known.sort_unstable();
    let tail = if known.is_empty() { " which is empty".into() } else { format!(": {}", known.join(", ")) };
    let mut error = Error::not_found(path, name);
    error.detail = format!("must be one of the names in pod.spec.resourceClaims{tail}");
    error
}

#[cfg(test)]
mod tests {
    use super::{Asker, requirements};
    use crate::field::Path;
    use serde_json::{Value, json};

    #[test]
    fn requests_stay_within_limits_and_names_are_known() {
        let check = |value: Value| -> Vec<String> {
            let errors = requirements(Some(&value), &Path::new("r"), Asker::Container, &[]);
            errors.iter().map(ToString::to_string).collect()
        };
        assert!(
            check(json!({"limits": {"cpu": "1", "a.io/x": "1"}, "requests": {"cpu": "1", "a.io/x": "1"}})).is_empty()
        );
        let cases = [
            (
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                "r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                json!({"requests": {"a.io/x": "1"}}),
                "r.limits: Required value: Limit must be set for non overcommitable resources",
            ),
            (
                json!({"limits": {"memory": "-1"}}),
                "r.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                json!({"limits": {"pods": "1"}}),
                "r.limits[pods]: Invalid value: \"pods\": must be a standard resource for containers",
            ),
        ];
        for (value, want) in cases {
            assert_eq!(check(value), [want]);
        }
        let unknown = check(json!({"limits": {"gold": "1"}}));
        assert_eq!(unknown.len(), 2, "{unknown:?}");
    }
}
