//! Authorization: is this user allowed to do that. The authorizers are asked in order; the first that does not pass
//! decides; none means no.

use crate::attributes::Attributes;
use crate::view::View;

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
    NoOpinion { reason: String },
}

/// One authorizer.
pub trait Authorizer: Send + Sync {
    /// Decides from what the caches hold.
    fn authorize(&self, attributes: &Attributes, view: &dyn View) -> Decision;
}
