//! Lease.

use serde_json::Value;

use super::cell::{self, row};
use super::{Change, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::{number, replace, text};
use crate::{Document, Timestamp};

/// Rules of `coordination.k8s.io/v1 Lease`.
pub(super) struct Lease;

impl Rules for Lease {
    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        // Coordinated leader election is off; what is stored already stays.
        let before = change.old.and_then(|old| old.at("/spec")).unwrap_or(&Value::Null);
        let Some(spec) = new.at_mut("/spec") else { return };
        for field in ["strategy", "preferredHolder"] {
            if before.get(field).is_none() {
                replace(spec, field, None);
            }
        }
    }

    fn validate(&self, new: &Document, _change: &Change<'_>) -> Errors {
        let (spec, path) = (new.at("/spec").unwrap_or(&Value::Null), Path::new("spec"));
        let mut errors = Errors::new();
        if let Some(n) = number(spec, "leaseDurationSeconds").filter(|n| *n <= 0) {
            errors.push(Error::invalid(path.child("leaseDurationSeconds"), n, "must be greater than 0"));
        }
        if let Some(n) = number(spec, "leaseTransitions").filter(|n| *n < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(Error::invalid(path.child("leaseTransitions"), n, detail));
        }
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, lease: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let holder = text(lease.at("/spec").unwrap_or(&Value::Null), "holderIdentity");
        row![lease.name(), holder, cell::age(lease, now)]
    }
}
