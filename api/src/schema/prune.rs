//! Drops the fields a schema does not know.

use super::Schema;
use crate::Document;

pub(super) fn prune(_schema: &Schema, _document: &mut Document) -> Vec<String> {
    Vec::new()
}
