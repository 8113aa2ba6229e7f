//! Disruption budgets: how many pods of a group may be taken away at a time.

use std::collections::BTreeSet;

use api::ObjectName;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use reconcile::selector;

use super::Snapshot;
use crate::Footprint;

/// A PodDisruptionBudget, as far as preemption looks at it.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Budget {
    pub selector: Option<LabelSelector>,
    /// `status.disruptionsAllowed`.
    pub allowed: i32,
    /// Names of pods whose disruption is counted already.
    pub disrupted: BTreeSet<String>,
}

impl Budget {
    /// Reads a budget object.
    pub fn of(budget: &PodDisruptionBudget) -> Self {
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|s| s.disrupted_pods.as_ref());
        Self {
            selector: budget.spec.as_ref().and_then(|s| s.selector.clone()),
            allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0),
            disrupted: disrupted.into_iter().flat_map(|pods| pods.keys().cloned()).collect(),
        }
    }

    fn spends_on(&self, pod: &Footprint) -> bool {
        let selects = |s: &LabelSelector| !selector::is_empty(s) && selector::matches(s, Some(&pod.labels));
        self.selector.as_ref().is_some_and(selects) && !self.disrupted.contains(&pod.name)
    }
}

impl Snapshot {
    /// Takes in a budget; nothing if it is gone.
    pub fn set_budget(&mut self, name: &ObjectName, budget: Option<Budget>) {
        match budget {
            Some(budget) => drop(self.budgets.insert(name.clone(), budget)),
            None => drop(self.budgets.remove(name)),
        }
    }

    /// For each of some pods that would be taken away in this order, whether that would violate a budget
    /// (`FilterVictimsWithPDBViolation`).
    pub fn violations<'a>(&self, pods: impl Iterator<Item = &'a Footprint>) -> Vec<bool> {
        let mut left: Vec<i32> = self.budgets.values().map(|budget| budget.allowed).collect();
        let violates = |pod: &Footprint| {
            let of_pod = |name: &ObjectName| name.namespace == pod.namespace && !pod.labels.is_empty();
            let concerned = self.budgets.iter().zip(&mut left).filter(|((name, _), _)| of_pod(name));
            for ((_, _), left) in concerned.filter(|((_, budget), _)| budget.spends_on(pod)) {
                *left -= 1;
                if *left < 0 {
                    return true;
                }
            }
            false
        };
        pods.map(violates).collect()
    }
}
