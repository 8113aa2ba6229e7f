//! PriorityClass.

use serde_json::Value;

use super::cell::{self, row};
use super::{Change, Operation, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::fill;
use crate::validation::{immutable, one_of};
use crate::{Document, Timestamp};

/// Rules of `scheduling.k8s.io/v1 PriorityClass`.
pub(super) struct PriorityClass;

/// Users' classes are below the system's.
const HIGHEST_USER_VALUE: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

impl Rules for PriorityClass {
    fn default(&self, class: &mut Document) {
        fill(class.value_mut(), "preemptionPolicy", "PreemptLowerPriority");
        if !class.bool_at("/globalDefault") {
            class.remove("/globalDefault");
        }
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        if change.operation == Operation::Create {
            new.set("/metadata/generation", 1);
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let value = new.i64_at("/value").unwrap_or_default();
        if let Some(old) = change.old {
            let mut errors = Errors::new();
            if value != old.i64_at("/value").unwrap_or_default() {
                errors.push(Error::forbidden(Path::new("value"), "may not be changed in an update."));
            }
            let path = Path::new("preemptionPolicy");
            errors.extend(immutable(new.at("/preemptionPolicy"), old.at("/preemptionPolicy"), &path));
            return errors;
        }
        let mut errors: Errors = reserved(new, value).into_iter().collect();
        let policy = new.str_at("/preemptionPolicy");
        errors.extend(one_of(policy, &Path::new("preemptionPolicy"), &["PreemptLowerPriority", "Never"]));
        errors
    }

    fn cells(&self, class: &Document, now: Timestamp) -> Option<Vec<Value>> {
        row![
            class.name(),
            class.i64_at("/value").unwrap_or_default(),
            class.bool_at("/globalDefault"),
            cell::age(class, now),
            class.str_at("/preemptionPolicy"),
        ]
    }
}

fn reserved(class: &Document, value: i64) -> Option<Error> {
    if !class.name().starts_with("system-") {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_VALUE}");
        return (value > HIGHEST_USER_VALUE).then(|| Error::forbidden(Path::new("value"), detail));
    }
    let why = match SYSTEM.iter().find(|(name, _)| *name == class.name()) {
        None => format!("{} is not a known system priority class", class.name()),
        Some((name, known)) if *known != value => format!("value of {name} PriorityClass must be {known}"),
        Some((name, _)) if class.bool_at("/globalDefault") => {
            format!("globalDefault of {name} PriorityClass must be false")
        }
        Some(_) => return None,
    };
    let detail = format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
    Some(Error::forbidden(Path::new("metadata").child("name"), detail))
}
