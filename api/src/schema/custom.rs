//! Makes types from a CustomResourceDefinition's structural schema.

use std::sync::Arc;

use serde_json::Value;

use super::shape::{Type, TypeRef};

pub(super) fn types(_schema: &Value) -> (Arc<[Type]>, TypeRef) {
    (Arc::new([]), TypeRef::Own(0))
}
