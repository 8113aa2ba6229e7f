//! What pods use (`pkg/quota/v1/evaluator/core/pods.go`, `k8s.io/component-helpers/resource`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::amounts::{Amounts, add, raise, read};
use super::{Scope, one};
use crate::kinds::{OF_PODS, is_extended, is_huge_pages, qos_class};
use crate::{Document, Timestamp, time};

/// A quota on one of these wants every container to say how much it needs.
const WANTED: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

/// Whether a quota's name concerns pods.
pub(super) fn counts(name: &str) -> bool {
    let extended = |rest: &str| is_extended(rest) || rest.starts_with(DEVICE_CLASS);
    let requested = |rest: &str| is_huge_pages(rest) || extended(rest);
    name == "count/pods"
        || OF_PODS.contains(&name)
        || is_huge_pages(name)
        || name.strip_prefix("requests.").is_some_and(requested)
}

/// What a pod is charged. One that has ended, or should have by `now`, counts only as an object.
pub(super) fn usage(pod: &Document, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([("count/pods".to_owned(), one())]);
    if runs(pod, now) {
        add(&mut used, &named(&requests(pod), &limits(pod)));
    }
    used
}

fn runs(pod: &Document, now: Timestamp) -> bool {
    if matches!(pod.str_at("/status/phase"), "Failed" | "Succeeded") {
        return false;
    }
    let grace = pod.i64_at("/metadata/deletionGracePeriodSeconds");
    match (time::parse(pod.str_at("/metadata/deletionTimestamp")), grace) {
        (Some(at), Some(seconds)) => {
            let end = at.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
            now <= end
        }
        _ => true,
    }
}

/// By the names that quotas use.
fn named(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), one())]);
    for (name, amount) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name);
        if plain {
            used.insert(name.clone(), amount.clone());
        }
        if plain || is_extended(name) || name.starts_with(DEVICE_CLASS) {
            used.insert(format!("requests.{name}"), amount.clone());
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), amount.clone());
        }
    }
    used
}

/// What the whole pod asks for, with its overhead: the most of what it wants, what it was given and what it has.
fn requests(pod: &Document) -> Amounts {
    let wanted = |container: &Value| resources(container, "requests");
    let allocated = |container: &Value| {
        let status = status(pod, container);
        match status.and_then(|s| s.get("allocatedResources")).filter(|list| list.is_object()) {
            Some(list) => read(Some(list)),
            None if infeasible(pod) => Amounts::new(),
            None => wanted(container),
        }
    };
    let actual = |container: &Value| {
        let own = status(pod, container).and_then(|s| s.pointer("/resources/requests"));
        own.map_or_else(|| allocated(container), |list| read(Some(list)))
    };
    let mut sum = total(pod, actual);
    raise(&mut sum, &total(pod, allocated));
    if !infeasible(pod) {
        raise(&mut sum, &total(pod, wanted));
    }
    said(pod, "requests", &mut sum);
    add(&mut sum, &read(pod.at("/spec/overhead")));
    sum
}

/// What the whole pod may use, with its overhead where there is a limit.
fn limits(pod: &Document) -> Amounts {
    let wanted = |container: &Value| resources(container, "limits");
    let actual = |container: &Value| {
        let own = status(pod, container).and_then(|s| s.pointer("/resources/limits"));
        match own {
            Some(list) => read(Some(list)),
            None if infeasible(pod) => Amounts::new(),
            None => wanted(container),
        }
    };
    let mut sum = total(pod, actual);
    if !infeasible(pod) {
        raise(&mut sum, &total(pod, wanted));
    }
    said(pod, "limits", &mut sum);
    for (name, amount) in read(pod.at("/spec/overhead")) {
        if let Some(limit) = sum.get_mut(&name).filter(|limit| !limit.is_zero()) {
            limit.add(&amount);
        }
    }
    sum
}

/// What containers of a pod ask for by `key` (`requests` or `limits`) as a whole, as far as its spec says.
pub fn of_spec(pod: &Document, key: &str) -> Amounts {
    let mut sum = total(pod, |container| resources(container, key));
    said(pod, key, &mut sum);
    sum
}

/// What the pod says for itself goes before the sum of its containers.
fn said(pod: &Document, key: &str, sum: &mut Amounts) {
    let own = read(pod.at(&format!("/spec/resources/{key}")));
    sum.extend(own.into_iter().filter(|(name, _)| pod_level(name)));
}

fn pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn resources(container: &Value, key: &str) -> Amounts {
    read(container.pointer(&format!("/resources/{key}")))
}

/// Containers and sidecars together, or the largest init container with the sidecars that run by then.
fn total(pod: &Document, of: impl Fn(&Value) -> Amounts) -> Amounts {
    let (mut sum, mut sidecars, mut highest) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in pod.list_at("/spec/containers") {
        add(&mut sum, &of(container));
    }
    for container in pod.list_at("/spec/initContainers") {
        let mut own = of(container);
        if container.get("restartPolicy").is_some_and(|policy| policy == "Always") {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut highest, &own);
    }
    raise(&mut sum, &highest);
    sum
}

fn status<'a>(pod: &'a Document, container: &Value) -> Option<&'a Value> {
    let name = container.get("name")?;
    let all = ["/status/containerStatuses", "/status/initContainerStatuses"].into_iter();
    all.flat_map(|list| pod.list_at(list)).find(|status| status.get("name") == Some(name))
}

/// Whether a resize can never be done.
fn infeasible(pod: &Document) -> bool {
    let text = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str) == Some("Infeasible");
    let pending = |c: &&Value| c.get("type").is_some_and(|t| t == "PodResizePending");
    pod.list_at("/status/conditions").iter().find(pending).is_some_and(|c| text(c, "reason"))
}

/// Which containers do not say what a quota on these names wants: `must specify limits.cpu for: a,b; ...`.
pub(super) fn missing<'a>(pod: &Document, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let by_pod = |key: &str| read(pod.at(&format!("/spec/resources/{key}"))).keys().any(|name| pod_level(name));
    if by_pod("requests") || by_pod("limits") {
        return None;
    }
    let wanted: BTreeSet<&str> = names.filter(|name| WANTED.contains(name)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in ["/spec/containers", "/spec/initContainers"].into_iter().flat_map(|list| pod.list_at(list)) {
        let said = named(&resources(container, "requests"), &resources(container, "limits"));
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        for unsaid in wanted.iter().filter(|name| !said.contains_key(**name)) {
            missing.entry(unsaid).or_default().insert(name);
        }
    }
    let each = |(name, containers): (&&str, &BTreeSet<&str>)| {
        format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
    };
    let all: Vec<String> = missing.iter().map(each).collect();
    (!all.is_empty()).then(|| format!("must specify {}", all.join("; ")))
}

/// Whether a pod ends by itself.
pub(super) fn terminating(pod: &Document) -> bool {
    pod.i64_at("/spec/activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0)
}

/// Whether a pod is in a quota's scope.
pub(super) fn in_scope(scope: &Scope<'_>, pod: &Document) -> bool {
    match scope.name {
        "Terminating" => terminating(pod),
        "NotTerminating" => !terminating(pod),
        "BestEffort" => qos_class(pod) == "BestEffort",
        "NotBestEffort" => qos_class(pod) != "BestEffort",
        "PriorityClass" => {
            let class = pod.str_at("/spec/priorityClassName");
            scope.matches((!class.is_empty()).then_some(class))
        }
        "CrossNamespacePodAffinity" => crosses(pod),
        _ => false,
    }
}

/// Whether an affinity looks at other namespaces.
fn crosses(pod: &Document) -> bool {
    let far = |term: &Value| {
        let namespaces = term.get("namespaces").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        namespaces || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let list =
            |when: &str| pod.list_at(&format!("/spec/affinity/{kind}/{when}DuringSchedulingIgnoredDuringExecution"));
        let preferred = list("preferred").iter().filter_map(|term| term.get("podAffinityTerm"));
        list("required").iter().chain(preferred).any(far)
    })
}
