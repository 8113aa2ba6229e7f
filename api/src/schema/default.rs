//! Sets the defaults a schema carries.

use super::Schema;
use crate::Document;

pub(super) fn default(_schema: &Schema, _document: &mut Document) {}
