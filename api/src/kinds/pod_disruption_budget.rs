//! PodDisruptionBudget.

use serde_json::Value;

use super::cell::{self, count, int_or_string, row};
use super::workload::counts;
use super::{Change, NameFormat, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::get;
use crate::validation::labels::label_selector;
use crate::validation::{at_most_100_percent, int_or_percent, supported};
use crate::{Document, Timestamp};

/// Rules of `policy/v1 PodDisruptionBudget`.
pub(super) struct PodDisruptionBudget;

/// A spec as Go's own type has it.
fn shown(spec: &Value) -> String {
    let field = |name: &str| spec.get(name).cloned().unwrap_or_default();
    let (least, selector) = (field("minAvailable"), field("selector"));
    let (most, policy) = (field("maxUnavailable"), field("unhealthyPodEvictionPolicy"));
    format!(
        "{{\"MinAvailable\":{least},\"Selector\":{selector},\"MaxUnavailable\":{most},\"UnhealthyPodEvictionPolicy\":{policy}}}"
    )
}

impl Rules for PodDisruptionBudget {
    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let nothing = Value::Null;
        if change.subresource == "status" {
            let fields = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
            return counts(new.at("/status").unwrap_or(&nothing), &fields, &Path::new("status"));
        }
        let (spec, path) = (new.at("/spec").unwrap_or(&nothing), Path::new("spec"));
        let mut errors = Errors::new();
        if get(spec, "minAvailable").is_some() && get(spec, "maxUnavailable").is_some() {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            let mut error = Error::invalid(path.clone(), spec.clone(), detail);
            error.shown = Some(shown(spec));
            errors.push(error);
        }
        for field in ["minAvailable", "maxUnavailable"] {
            let (value, path) = (get(spec, field), path.child(field));
            errors.extend(int_or_percent(value, &path));
            errors.extend(at_most_100_percent(value, &path));
        }
        errors.extend(label_selector(get(spec, "selector"), &path.child("selector")));
        if let Some(policy) = get(spec, "unhealthyPodEvictionPolicy").and_then(Value::as_str) {
            let allowed = ["AlwaysAllow", "IfHealthyBudget"];
            errors.extend(supported(policy, &path.child("unhealthyPodEvictionPolicy"), &allowed));
        }
        errors
    }

    fn name_format(&self) -> NameFormat {
        NameFormat::PathSegment
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, budget: &Document, now: Timestamp) -> Option<Vec<Value>> {
        row![
            budget.name(),
            int_or_string(budget.at("/spec/minAvailable"), "N/A"),
            int_or_string(budget.at("/spec/maxUnavailable"), "N/A"),
            count(budget, "/status/disruptionsAllowed"),
            cell::age(budget, now),
        ]
    }
}
