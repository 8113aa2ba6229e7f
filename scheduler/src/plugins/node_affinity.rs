//! NodeAffinity: a pod's nodeSelector and node affinity (`component-helpers/scheduling/corev1/nodeaffinity`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::more_is_better;
use crate::{Candidates, Event, Node, NodeChoice, NodeIndex, Plugin, Reason, Snapshot, Wanted};

const NO_MATCH: Reason = Reason::unresolvable("node(s) didn't match Pod's node affinity/selector");

pub(super) struct NodeAffinity;

/// Whether a pod may run on a node by what it says about nodes.
pub(super) fn allows(choice: &NodeChoice, node: &Node) -> bool {
    choice.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && choice.required.as_ref().is_none_or(|terms| terms.iter().any(|term| matches(term, node)))
}

/// A term without any requirement matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|r| holds(r, node.labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| r.key == "metadata.name" && field_holds(r, &node.name))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |v: &str| values.iter().any(|x| x == v);
    let compared = |holds: fn(i64, i64) -> bool| match (value.and_then(|v| v.parse().ok()), values) {
        (Some(value), [bound]) => bound.parse().is_ok_and(|bound| holds(value, bound)),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(|value, bound| value > bound),
        "Lt" => compared(|value, bound| value < bound),
        _ => false,
    }
}

fn field_holds(requirement: &NodeSelectorRequirement, name: &str) -> bool {
    match (requirement.operator.as_str(), requirement.values.as_deref().unwrap_or_default()) {
        ("In", [value]) => value == name,
        ("NotIn", [value]) => value != name,
        _ => false,
    }
}

/// The names of the only nodes that a term can match, where it says so.
fn named(term: &NodeSelectorTerm) -> Option<BTreeSet<String>> {
    let fields = term.match_fields.iter().flatten().filter(|r| r.key == "metadata.name" && r.operator == "In");
    let names = fields.map(|r| r.values.iter().flatten().cloned().collect::<BTreeSet<String>>());
    names.reduce(|both, names| &both & &names)
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn narrow(&self, pod: &Wanted) -> Option<BTreeSet<String>> {
        let terms = pod.nodes.required.as_ref().filter(|terms| !terms.is_empty())?;
        terms.iter().map(named).try_fold(BTreeSet::new(), |all, names| Some(&all | &names?))
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        if pod.nodes.labels.is_empty() && pod.nodes.required.is_none() {
            return;
        }
        nodes.refuse(&NO_MATCH, |at| snapshot.node(at).is_none_or(|n| !allows(&pod.nodes, n)));
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) -> bool {
        if pod.nodes.preferred.is_empty() {
            return false;
        }
        for (score, node) in scores.iter_mut().zip(nodes) {
            let Some(node) = snapshot.node(*node) else { continue };
            let liked = pod.nodes.preferred.iter().filter(|p| matches(&p.preference, node));
            *score = liked.map(|p| i64::from(p.weight)).sum();
        }
        true
    }

    fn normalize(&self) -> Option<fn(&mut [i64])> {
        Some(more_is_better)
    }

    fn heeds(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::Node { .. })
    }

    fn wakes_on(&self, pod: &Wanted, event: &Event<'_>) -> bool {
        let allows = |n: &Node| allows(&pod.nodes, n);
        matches!(event, Event::Node { was, now } if allows(now) && was.is_none_or(|w| !allows(w)))
    }
}
