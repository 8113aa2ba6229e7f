//! Node.

use serde_json::Value;

use super::cell::{self, NONE, or, row};
use super::{Change, Operation, Rules, pod_spec};
use crate::field::{Error, Errors, Path};
use crate::tree::{map, set, text, texts};
use crate::validation::{address, immutable};
use crate::{Document, Timestamp};

/// Rules of `v1 Node`.
pub(super) struct Node;

impl Rules for Node {
    fn default(&self, node: &mut Document) {
        let capacity = node.at("/status/capacity").cloned();
        if let Some(status) = node.at_mut("/status") {
            for list in ["capacity", "allocatable"] {
                if let Some(list) = status.get_mut(list) {
                    pod_spec::resource_list(list);
                }
            }
        }
        if let Some(capacity) = capacity.filter(|c| !c.is_null()) {
            node.set_default("/status/allocatable", capacity);
        }
        pod_cidrs(node);
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let mut errors = Errors::new();
        errors.extend(pod_spec::taints(new.list_at("/spec/taints"), &Path::new("metadata").child("taints")));
        errors.extend(resources(new));
        match change.old.filter(|_| change.operation == Operation::Update) {
            None => errors.extend(new_pod_cidrs(new)),
            Some(old) => errors.extend(update(new, old)),
        }
        errors
    }

    fn keeps_status_on_create(&self) -> bool {
        true
    }

    fn selectable(&self, node: &Document) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", node.bool_at("/spec/unschedulable").to_string())]
    }

    fn cells(&self, node: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let info = |field: &str| node.str_at(&format!("/status/nodeInfo/{field}"));
        let kernel = match info("architecture") {
            "" => or(info("kernelVersion"), "<unknown>").to_owned(),
            architecture => format!("{} ({architecture})", or(info("kernelVersion"), "<unknown>")),
        };
        row![
            node.name(),
            status(node),
            or(&roles(node), NONE),
            cell::age(node, now),
            info("kubeletVersion"),
            address_of(node, "InternalIP"),
            address_of(node, "ExternalIP"),
            or(info("osImage"), "<unknown>"),
            kernel,
            or(info("containerRuntimeVersion"), "<unknown>"),
        ]
    }
}

/// `podCIDR` is the first of `podCIDRs`.
fn pod_cidrs(node: &mut Document) {
    let single = node.str_at("/spec/podCIDR").to_owned();
    let first = node.str_at("/spec/podCIDRs/0").to_owned();
    let Some(spec) = node.at_mut("/spec") else { return };
    if single.is_empty() && !first.is_empty() {
        set(spec, "podCIDR", first);
    } else if !single.is_empty() && first != single {
        set(spec, "podCIDRs", vec![single]);
    }
}

fn status(node: &Document) -> String {
    let ready = match cell::condition(node, "Ready") {
        Some(condition) if text(condition, "status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if node.bool_at("/spec/unschedulable") { format!("{ready},SchedulingDisabled") } else { ready.into() }
}

fn roles(node: &Document) -> String {
    let role = |(key, value)| match key {
        "kubernetes.io/role" => Some(value),
        key => str::strip_prefix(key, "node-role.kubernetes.io/"),
    };
    let mut roles: Vec<&str> = node.labels().filter_map(role).filter(|role| !role.is_empty()).collect();
    roles.sort_unstable();
    roles.dedup();
    roles.join(",")
}

fn address_of<'a>(node: &'a Document, kind: &str) -> &'a str {
    let found = node.list_at("/status/addresses").iter().find(|a| text(a, "type") == kind);
    found.map_or(NONE, |a| text(a, "address"))
}

fn resources(node: &Document) -> Errors {
    let mut errors = Errors::new();
    for kind in ["capacity", "allocatable"] {
        let path = Path::new("status").child(kind);
        for (name, quantity) in map(node.at(&format!("/status/{kind}"))) {
            errors.extend(pod_spec::quantity_value(name, quantity, &path.child(name)));
        }
    }
    errors
}

fn new_pod_cidrs(node: &Document) -> Errors {
    let path = Path::new("spec").child("podCIDRs");
    let cidrs = texts(node.at("/spec").unwrap_or(&Value::Null), "podCIDRs");
    let mut errors: Errors =
        cidrs.iter().enumerate().flat_map(|(i, cidr)| address::cidr(cidr, &path.index(i))).collect();
    let bare: Vec<&str> = cidrs.iter().map(|c| c.split('/').next().unwrap_or_default()).collect();
    if cidrs.len() > 2 || (cidrs.len() == 2 && !address::is_dual_stack(&bare)) {
        let value = node.at("/spec/podCIDRs").cloned().unwrap_or_default();
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(Error::invalid(path, value, detail));
    }
    errors
}

fn update(new: &Document, old: &Document) -> Errors {
    let mut errors = Errors::new();
    let addresses = new.list_at("/status/addresses");
    for (i, address) in addresses.iter().enumerate().filter(|(i, a)| addresses.iter().take(*i).any(|b| b == *a)) {
        errors.push(Error::duplicate(Path::new("status").child("addresses").index(i), address.clone()));
    }
    let spec = Path::new("spec");
    let before = old.list_at("/spec/podCIDRs");
    if !before.is_empty() && before != new.list_at("/spec/podCIDRs") {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(Error::forbidden(spec.child("podCIDRs"), detail));
    }
    let (now, before) = (new.str_at("/spec/providerID"), old.str_at("/spec/providerID"));
    if !before.is_empty() && now != before {
        let what = if now.is_empty() { "cleared" } else { "modified" };
        let detail = format!("field cannot be {what} once set");
        // Upstream shows no value here.
        errors.push(Error::invalid(spec.child("providerID"), Value::Null, detail));
    }
    errors.extend(immutable(new.at("/spec/externalID"), old.at("/spec/externalID"), &spec.child("externalID")));
    errors
}

#[cfg(test)]
mod tests {
    use super::Node;
    use crate::kinds::tests::cells;
    use serde_json::{Value, json};

    #[test]
    fn a_row_has_status_and_roles() {
        let cases: [(Value, Value, &str); 3] = [
            (json!({}), json!({}), "n Unknown <none>"),
            (
                json!({"node-role.kubernetes.io/b": "", "kubernetes.io/role": "a"}),
                json!([{"type": "Ready", "status": "True"}]),
                "n Ready a,b",
            ),
            (json!({}), json!([{"type": "Ready", "status": "Unknown"}]), "n NotReady <none>"),
        ];
        for (labels, conditions, want) in cases {
            let node = json!({"metadata": {"name": "n", "labels": labels}, "status": {"conditions": conditions}});
            assert_eq!(cells(&Node, node).get(..3).map(|c| c.join(" ")).as_deref(), Some(want));
        }
    }
}
