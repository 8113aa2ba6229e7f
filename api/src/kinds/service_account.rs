//! ServiceAccount.

use serde_json::{Value, json};

use super::cell::{self, row};
use super::{Change, Rules};
use crate::tree::{items_mut, text};
use crate::{Document, Timestamp};

/// Rules of `v1 ServiceAccount`.
pub(super) struct ServiceAccount;

impl Rules for ServiceAccount {
    fn prepare(&self, new: &mut Document, _change: &Change<'_>) {
        // Of a reference to a secret only the name counts.
        for secret in items_mut(new.value_mut(), "secrets") {
            *secret = json!({"name": text(secret, "name")});
        }
    }

    fn cells(&self, account: &Document, now: Timestamp) -> Option<Vec<Value>> {
        row![account.name(), cell::age(account, now)]
    }
}
