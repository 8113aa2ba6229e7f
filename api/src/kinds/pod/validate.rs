//! What is wrong with a pod (`ValidatePodCreate`, `ValidatePodUpdate`, `ValidatePodStatusUpdate`).

use serde_json::Value;

use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::kinds::{Change, Operation, pod_spec};
use crate::tree::{get, items_mut, list, map, number, replace, text};
use crate::validation::{address, dns_subdomain, immutable, non_negative, qualified_name, same, text as names};

/// On create and update, of the pod and its subresources.
pub(super) fn validate(new: &Document, change: &Change<'_>) -> Errors {
    match (change.operation, change.subresource, change.old) {
        (Operation::Create, _, _) => create(new),
        (_, "status", Some(old)) => status(new, old),
        (_, "ephemeralcontainers", Some(old)) => ephemeral_containers(new, old),
        (_, "resize", Some(old)) => resize(new, old),
        (_, _, Some(old)) => update(new, old),
        (_, _, None) => Errors::new(),
    }
}

fn spec(pod: &Document) -> &Value {
    pod.at("/spec").unwrap_or(&Value::Null)
}

fn whole(pod: &Document) -> Errors {
    let path = Path::new("spec");
    let mut errors = annotations(pod);
    errors.extend(pod_spec::validate(spec(pod), &path, true));
    errors.extend(pod_spec::only_in_pod(spec(pod), &path));
    errors
}

fn annotations(pod: &Document) -> Errors {
    let path = Path::new("metadata").child("annotations");
    let mut errors = Errors::new();
    let mirror = "kubernetes.io/config.mirror";
    if let Some(value) = pod.annotation(mirror).filter(|_| text(spec(pod), "nodeName").is_empty()) {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(Error::invalid(path.key(mirror), value, detail));
    }
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = pod.annotation(cost).filter(|v| v.parse::<i32>().is_err() || v.starts_with('+')) {
        errors.push(Error::invalid(path.key(cost), value, "must be a 32bit integer"));
    }
    errors
}

fn create(pod: &Document) -> Errors {
    let path = Path::new("spec");
    let mut errors = whole(pod);
    if !list(spec(pod), "ephemeralContainers").is_empty() {
        errors.push(Error::forbidden(path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(spec(pod), "nodeName").is_empty() && !list(spec(pod), "schedulingGates").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(path.child("nodeName"), detail));
    }
    errors
}

fn update(new: &Document, old: &Document) -> Errors {
    let path = Path::new("spec");
    let (now, before) = (spec(new), spec(old));
    let mut errors = whole(new);
    for kind in ["containers", "initContainers"] {
        if list(now, kind).len() != list(before, kind).len() {
            errors.push(Error::forbidden(path.child(kind), "pod updates may not add or remove containers"));
            return errors;
        }
    }
    match deadline(now, before, &path.child("activeDeadlineSeconds")) {
        Ok(error) => errors.extend(error),
        Err(error) => {
            errors.push(error);
            return errors;
        }
    }
    errors.extend(tolerations(now, before, &path.child("tolerations")));
    errors.extend(scheduling_gates(now, before, &path.child("schedulingGates")));
    errors.extend(unchangeable(now, before, path));
    errors
}

/// A deadline may come and shrink; the error in `Err` ends the checks.
fn deadline(now: &Value, before: &Value, path: &Path) -> Result<Option<Error>, Error> {
    let max = i64::from(i32::MAX);
    let field = "activeDeadlineSeconds";
    match (number(now, field), number(before, field)) {
        (Some(n), _) if !(0..=max).contains(&n) => Err(Error::invalid(path.clone(), n, names::between(0, max))),
        (Some(n), Some(old)) if old < n => {
            Err(Error::invalid(path.clone(), n, "must be less than or equal to previous value"))
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            Ok(Some(Error::invalid(path.clone(), Value::Null, detail)))
        }
        _ => Ok(None),
    }
}

fn tolerations(now: &Value, before: &Value, path: &Path) -> Errors {
    if get(now, "tolerations") == get(before, "tolerations") {
        return Errors::new();
    }
    let without_seconds = |toleration: &Value| {
        let mut bare = toleration.clone();
        replace(&mut bare, "tolerationSeconds", None);
        bare
    };
    let kept: Vec<Value> = list(now, "tolerations").iter().map(without_seconds).collect();
    let lost = list(before, "tolerations").iter().any(|t| !kept.contains(&without_seconds(t)));
    if lost {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        return vec![Error::forbidden(path.clone(), detail)];
    }
    pod_spec::tolerations(list(now, "tolerations"), path)
}

fn scheduling_gates(now: &Value, before: &Value, path: &Path) -> Errors {
    let names = |spec: &Value| -> Vec<String> {
        list(spec, "schedulingGates").iter().map(|gate| text(gate, "name").into()).collect()
    };
    let known = names(before);
    let added = names(now).into_iter().enumerate().filter(|(_, name)| !known.contains(name));
    added
        .map(|(i, name)| {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            Error::forbidden(path.index(i).child("name"), detail)
        })
        .collect()
}

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Everything besides the few fields that may change stays.
fn unchangeable(now: &Value, before: &Value, path: Path) -> Option<Error> {
    if now == before {
        return None;
    }
    let mut munged = now.clone();
    for kind in ["containers", "initContainers"] {
        let images: Vec<Option<Value>> = list(before, kind).iter().map(|c| c.get("image").cloned()).collect();
        for (container, image) in items_mut(&mut munged, kind).zip(images) {
            replace(container, "image", image);
        }
    }
    let gated = !list(before, "schedulingGates").is_empty();
    let mut free = vec!["activeDeadlineSeconds", "schedulingGates", "tolerations"];
    let added_selectors =
        map(get(before, "nodeSelector")).all(|(k, v)| now.pointer("/nodeSelector").and_then(|s| s.get(k)) == Some(v));
    if gated && added_selectors {
        free.push("nodeSelector");
    }
    let grace = "terminationGracePeriodSeconds";
    if number(before, grace).is_some_and(|n| n < 0) && number(now, grace) == Some(1) {
        free.push(grace);
    }
    for field in free {
        replace(&mut munged, field, before.get(field).cloned());
    }
    if same(Some(&munged), Some(before)) {
        return None;
    }
    let difference = difference(before, &munged);
    let detail = format!("pod updates may not change fields other than {UPDATABLE}\n{difference}");
    Some(Error::forbidden(path, detail))
}

/// What two specs differ in, field by field.
fn difference(before: &Value, now: &Value) -> String {
    let fields = map(Some(before)).chain(map(Some(now))).map(|(field, _)| field);
    let mut changed: Vec<&String> = fields.filter(|f| !same(before.get(*f), now.get(*f))).collect();
    changed.sort();
    changed.dedup();
    let show = |value: Option<&Value>| value.map_or_else(|| "<unset>".into(), ToString::to_string);
    let lines = changed.iter().map(|f| format!("@@ {f} @@\n- {}\n+ {}\n", show(before.get(*f)), show(now.get(*f))));
    lines.collect()
}

fn ephemeral_containers(new: &Document, old: &Document) -> Errors {
    let path = Path::new("spec").child("ephemeralContainers");
    let mut errors = pod_spec::validate(spec(new), &Path::new("spec"), true);
    for before in list(spec(old), "ephemeralContainers") {
        let name = text(before, "name");
        match list(spec(new), "ephemeralContainers").iter().find(|c| text(c, "name") == name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(Error::forbidden(path.clone(), detail));
            }
            Some(now) if !same(Some(now), Some(before)) => {
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n@@ container @@");
                errors.push(Error::forbidden(path.clone(), detail));
            }
            Some(_) => {}
        }
    }
    errors
}

fn resize(new: &Document, old: &Document) -> Errors {
    let path = Path::new("spec");
    let mut errors = whole(new);
    for kind in ["containers", "initContainers"] {
        let names =
            |doc: &Document| -> Vec<String> { list(spec(doc), kind).iter().map(|c| text(c, "name").into()).collect() };
        if names(new) != names(old) {
            let detail = "containers may not be renamed or reordered on resize";
            errors.push(Error::forbidden(path.child(kind), detail));
        }
    }
    let class = super::qos::class(new);
    if class != old.str_at("/status/qosClass") && errors.is_empty() {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(Error::invalid(path.clone(), class, detail));
    }
    for kind in ["initContainers", "containers"] {
        let pairs = list(spec(new), kind).iter().zip(list(spec(old), kind));
        for (i, (new, old)) in pairs.enumerate() {
            errors.extend(kept_resources(new, old, &path.child(kind).index(i).child("resources")));
        }
    }
    errors
}

/// A resize changes requests and limits, and takes none away.
fn kept_resources(new: &Value, old: &Value, path: &Path) -> Errors {
    let named = |of: &Value, field: &str| of.pointer(&format!("/resources/{field}")).cloned().unwrap_or_default();
    let mut errors = Errors::new();
    for field in ["requests", "limits"] {
        let (now, before) = (named(new, field), named(old, field));
        if map(Some(&before)).any(|(name, _)| now.get(name).is_none()) {
            let detail = format!("resource {field} cannot be removed");
            errors.push(Error::forbidden(path.child(field), detail));
        }
    }
    errors
}

fn status(new: &Document, old: &Document) -> Errors {
    let nothing = Value::Null;
    let path = Path::new("status");
    let (now, before) = (new.at("/status").unwrap_or(&nothing), old.at("/status").unwrap_or(&nothing));
    let mut errors = conditions(list(now, "conditions"), &path.child("conditions"));
    errors.extend(nomination(now, before, old, &path.child("nominatedNodeName")));
    errors.extend(non_negative(number(now, "observedGeneration"), &path.child("observedGeneration")));
    errors.extend(immutable(now.get("qosClass"), before.get("qosClass"), &path.child("qosClass")));
    errors.extend(restarts(now, before, spec(old), &path));
    errors.extend(ips(now, before, "podIP", "podIPs", &path));
    errors.extend(ips(now, before, "hostIP", "hostIPs", &path));
    errors
}

fn conditions(conditions: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        if let Some(n) = number(condition, "observedGeneration").filter(|n| *n < 0) {
            errors.push(Error::invalid(path.child("observedGeneration"), n, "must be a non-negative integer"));
        }
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            errors.extend(qualified_name(kind, &path.child("Type")));
        }
    }
    errors
}

fn nomination(now: &Value, before: &Value, old: &Document, path: &Path) -> Errors {
    let node = text(now, "nominatedNodeName");
    if node.is_empty() || node == text(before, "nominatedNodeName") {
        return Errors::new();
    }
    let mut errors = dns_subdomain(node, path);
    if !text(spec(old), "nodeName").is_empty() {
        let detail = "may not be set on pods that are already bound to a node";
        errors.push(Error::forbidden(path.clone(), detail));
    }
    errors
}

/// A container that ended for good does not start again.
fn restarts(now: &Value, before: &Value, spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let pod_policy = text(spec, "restartPolicy");
    for (statuses, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        for earlier in list(before, statuses) {
            let Some(end) = earlier.pointer("/state/terminated").filter(|v| !v.is_null()) else { continue };
            let name = text(earlier, "name");
            let container = list(spec, containers).iter().find(|c| text(c, "name") == name);
            let has_rules =
                container.is_some_and(|c| get(c, "restartPolicy").is_some() || get(c, "restartPolicyRules").is_some());
            let failed = number(end, "exitCode").unwrap_or_default() != 0;
            let may = match pod_policy {
                "Never" => false,
                "OnFailure" => failed,
                _ => containers == "containers" || failed,
            };
            if may || has_rules {
                continue;
            }
            let restarted = list(now, statuses)
                .iter()
                .enumerate()
                .find(|(_, s)| text(s, "name") == name && s.pointer("/state/terminated").is_none_or(Value::is_null));
            if let Some((i, _)) = restarted {
                let detail = "may not be transitioned to non-terminated state";
                errors.push(Error::forbidden(path.child(statuses).index(i).child("state"), detail));
            }
        }
    }
    errors
}

/// One address, and the list it is the first of.
fn ips(now: &Value, before: &Value, single: &str, plural: &str, path: &Path) -> Errors {
    let of = |status: &Value| -> Vec<String> { list(status, plural).iter().map(|ip| text(ip, "ip").into()).collect() };
    let (all, known) = (of(now), of(before));
    let path = path.child(plural);
    let mut errors = Errors::new();
    for (i, ip) in all.iter().enumerate().filter(|(_, ip)| !known.contains(ip)) {
        errors.extend(address::ip(ip, &path.index(i)));
    }
    let value = || now.get(plural).cloned().unwrap_or_default();
    let texts: Vec<&str> = all.iter().map(String::as_str).collect();
    if all.len() > 2 || (all.len() == 2 && !address::is_dual_stack(&texts)) {
        let detail = "may specify no more than one IP for each IP family";
        let mut error = Error::invalid(path.clone(), value(), detail);
        // As Go's own type has it.
        let shown: Vec<String> = all.iter().map(|ip| format!("{{\"IP\":{}}}", Value::from(ip.as_str()))).collect();
        error.shown = Some(format!("[{}]", shown.join(",")));
        errors.push(error);
    }
    let one = text(now, single);
    match all.first() {
        Some(first) if first != one => {
            let detail = format!("must be equal to `{single}`");
            errors.push(Error::invalid(path.index(0).child("ip"), first.as_str(), detail));
        }
        None if !one.is_empty() && single == "podIP" => {
            let detail = "podIP and podIPs must either both be set or both be unset";
            errors.push(Error::invalid(path, value(), detail));
        }
        _ => {}
    }
    errors
}

/// What stands in a pod that does not do what its author thinks.
pub(super) fn warnings(new: &Document, change: &Change<'_>) -> Vec<String> {
    if change.operation != Operation::Create {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    let messages = names::label(new.name());
    if !messages.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label \
             is recommended: [{}]",
            messages.join(" ")
        ));
    }
    warnings.extend(pod_spec::warnings(new.value(), ""));
    warnings
}
