//! What the checks of a PodSpec's parts need to know of the whole.

use serde_json::Value;

use crate::tree::{list, number, text};

/// A PodSpec under validation.
pub(super) struct Context<'a> {
    /// The spec.
    pub spec: &'a Value,
    /// Its volumes that are sound.
    pub volumes: Vec<&'a Value>,
    /// The names of its resource claims.
    pub claims: Vec<&'a str>,
    /// Its termination grace period in seconds.
    pub grace: Option<i64>,
}

impl<'a> Context<'a> {
    pub(super) fn new(spec: &'a Value, volumes: Vec<&'a Value>) -> Self {
        let claims = list(spec, "resourceClaims").iter().map(|c| text(c, "name")).collect();
        Self { spec, volumes, claims, grace: number(spec, "terminationGracePeriodSeconds") }
    }
}
