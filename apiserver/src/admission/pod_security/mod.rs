//! PodSecurity: pods keep to the level that their namespace's labels name (`k8s.io/pod-security-admission/admission`).

mod checks;
mod level;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::{Document, GroupKind, GroupResource, Status, StatusResult};
use serde_json::Value;

use super::{Context, Plugin, Remarks};
use checks::{Pod, Violation, violations};
use level::{Level, LevelVersion, Policy};

/// Where the pod template of each kind stands; pods are their own.
const TEMPLATES: &[(&str, &str, &str)] = &[
    ("", "pods", ""),
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
    ("batch", "jobs", "/spec/template"),
];

/// Subresources of pods that do not change what a pod may do.
const HARMLESS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// So many pods are looked at when a namespace gets a stricter level.
const MAX_PODS: usize = 3000;

pub(super) struct PodSecurity;

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, object: &Document, context: &Context<'_>) -> StatusResult<()> {
        if !matches!(context.verb(), "create" | "update") {
            return Ok(());
        }
        if context.is("", "namespaces") {
            return labels(object, context);
        }
        let Some((pod, policy)) = pod(object, context).filter(|_| context.resource() == GroupResource::new("", "pods"))
        else {
            return Ok(());
        };
        match violations(&pod, policy.enforce).as_slice() {
            [] => Ok(()),
            found => {
                let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(found));
                Err(context.forbidden(object, why))
            }
        }
    }

    fn remarks(&self, object: &Document, context: &Context<'_>) -> Remarks {
        if !matches!(context.verb(), "create" | "update") {
            return Remarks::default();
        }
        if context.is("", "namespaces") {
            return Remarks { warnings: stricter(object, context), annotations: Vec::new() };
        }
        let Some((pod, policy)) = pod(object, context) else { return Remarks::default() };
        let mut remarks = Remarks::default();
        if context.resource() == GroupResource::new("", "pods") {
            let key = "pod-security.kubernetes.io/enforce-policy";
            remarks.annotations.push((key.into(), policy.enforce.to_string()));
        }
        let would = |level: LevelVersion| match violations(&pod, level).as_slice() {
            [] => None,
            found => Some(format!("would violate PodSecurity \"{level}\": {}", details(found))),
        };
        let key = "pod-security.kubernetes.io/audit-violations";
        remarks.annotations.extend(would(policy.audit).map(|text| (key.to_owned(), text)));
        remarks.warnings.extend(would(policy.warn));
        remarks
    }
}

fn details(violations: &[Violation]) -> String {
    let show = |violation: &Violation| format!("{} ({})", violation.reason, violation.detail);
    violations.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// The pod (or a controller's template of it) that is to be judged, and by what; `None` where there is nothing to judge.
fn pod<'a>(object: &'a Document, context: &Context<'_>) -> Option<(Pod<'a>, Policy)> {
    let resource = context.resource();
    let (_, _, template) =
        TEMPLATES.iter().find(|(group, plural, _)| (*group, *plural) == (&resource.group, &resource.resource))?;
    let sub = context.subresource();
    let harmless = if template.is_empty() { HARMLESS.contains(&sub) } else { !sub.is_empty() };
    if harmless {
        return None;
    }
    if context.old.is_some_and(|old| template.is_empty() && !significant(object, old)) {
        return None;
    }
    let namespace = context.look_up("", "namespaces", "", context.namespace())?;
    let (policy, _) = Policy::of(&namespace);
    if policy.is_privileged() {
        return None;
    }
    Some((Pod::at(object.at(template)?)?, policy))
}

/// Whether an update changes a container or its image.
fn significant(new: &Document, old: &Document) -> bool {
    let image = |container: &Value| container.get("image").cloned();
    let lists = ["/spec/containers", "/spec/initContainers"].iter().any(|list| {
        let images = |pod: &Document| pod.list_at(list).iter().map(image).collect::<Vec<_>>();
        images(new) != images(old)
    });
    let ephemeral = "/spec/ephemeralContainers";
    let known = |container: &Value| {
        let same = |other: &&Value| other.get("name") == container.get("name");
        old.list_at(ephemeral).iter().find(same).is_some_and(|other| image(other) == image(container))
    };
    lists || !new.list_at(ephemeral).iter().all(known)
}

/// A namespace's labels must be such that they can be followed, unless they were not before either.
fn labels(namespace: &Document, context: &Context<'_>) -> StatusResult<()> {
    let (_, errors) = Policy::of(namespace);
    let before = context.old.map(|old| Policy::of(old).1);
    if errors.is_empty() || before.is_some_and(|before| before == errors) {
        return Ok(());
    }
    let kind = GroupKind { group: String::new(), kind: "Namespace".into() };
    Err(Status::invalid(&kind, context.name(), &errors))
}

/// Which pods a stricter level finds in a namespace.
fn stricter(namespace: &Document, context: &Context<'_>) -> Vec<String> {
    let Some(old) = context.old else { return Vec::new() };
    let (new, old) = (Policy::of(namespace).0.enforce, Policy::of(old).0.enforce);
    let relaxed = new.version == old.version && new.level <= old.level;
    if new == old || new.level == Level::Privileged || relaxed {
        return Vec::new();
    }
    let mut pods = context.view.list(&GroupResource::new("", "pods"), Some(namespace.name()));
    pods.sort_by(|a, b| a.name().cmp(b.name()));
    let all = pods.len();
    let checked = all.min(MAX_PODS);
    pods.truncate(checked);
    let found = by_reason(&pods, new);
    let mut warnings = Vec::new();
    if checked < all {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {all} existing pods"
        ));
    }
    if !found.is_empty() {
        let name = namespace.name();
        warnings
            .push(format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{new}\""));
    }
    warnings.extend(found);
    warnings
}

/// The reasons, each with the pods it is about, sorted.
fn by_reason(pods: &[Document], level: LevelVersion) -> Vec<String> {
    let mut reasons: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in pods {
        let Some(judged) = Pod::at(pod.value()) else { continue };
        let found = violations(&judged, level);
        if !found.is_empty() {
            let reason = found.iter().map(|v| v.reason.as_str()).collect::<Vec<_>>().join(", ");
            reasons.entry(reason).or_insert((pod.name(), 0)).1 += 1;
        }
    }
    let mut texts: Vec<String> = reasons
        .iter()
        .map(|(reason, (first, count))| match count {
            1 => format!("{first}: {reason}"),
            2 => format!("{first} (and 1 other pod): {reason}"),
            count => format!("{first} (and {} other pods): {reason}", count - 1),
        })
        .collect();
    texts.sort();
    texts
}
