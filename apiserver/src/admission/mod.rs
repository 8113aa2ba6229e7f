//! Admission: one file a plugin, and the list of them in the order they run.
//!
//! Mutating plugins run first, each followed by defaulting and pruning; validating ones see the final object. Both are
//! pure. Webhooks are a plugin of the write machine itself, since they must ask outside.

use api::{Document, GroupVersionKind, StatusResult, Timestamp};

use crate::attributes::Attributes;
use crate::view::View;

/// The request that is being admitted.
pub struct Context<'a> {
    /// Who wants what.
    pub attributes: &'a Attributes,
    /// The kind of the object in the request.
    pub kind: &'a GroupVersionKind,
    /// The stored object, on update and delete.
    pub old: Option<&'a Document>,
    /// Other objects.
    pub view: &'a dyn View,
    /// The request's time.
    pub now: Timestamp,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// One admission plugin. `object` is the new object; on delete and connect it is the options or empty.
pub trait Plugin: Send + Sync {
    /// Its name, as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// Changes the object.
    fn mutate(&self, _object: &mut Document, _context: &Context<'_>) -> StatusResult<()> {
        Ok(())
    }

    /// Refuses the request.
    fn validate(&self, _object: &Document, _context: &Context<'_>) -> StatusResult<()> {
        Ok(())
    }
}

/// Every plugin, in order. To add one: a file and a line.
pub const PLUGINS: &[&dyn Plugin] = &[];
