//! Authorization: is this user allowed to do that. The authorizers are asked in order; the first that does not pass
//! decides; none means no.

mod index;
mod node;
mod rbac;
pub(crate) mod rule;

use std::sync::Arc;

use crate::attributes::{Attributes, User};
use crate::view::View;

pub(crate) use index::{Index, aggregate};
pub(crate) use node::node_name;
use rbac::Rbac;

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Decision {
    Allow { reason: String },
    Deny { reason: String },
    NoOpinion { reason: String },
}

impl Decision {
    /// No opinion, without a word.
    pub fn pass() -> Self {
        Self::NoOpinion { reason: String::new() }
    }

    /// Whether it allows.
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// One authorizer.
pub trait Authorizer: Send + Sync {
    /// Decides from what the caches hold.
    fn authorize(&self, attributes: &Attributes, view: &dyn View) -> Decision;
}

/// Asks the authorizers in order. Where none has an opinion, their reasons are joined.
pub fn decide(authorizers: &[Arc<dyn Authorizer>], attributes: &Attributes, view: &dyn View) -> Decision {
    let mut reasons: Vec<String> = Vec::new();
    for authorizer in authorizers {
        match authorizer.authorize(attributes, view) {
            Decision::NoOpinion { reason } => reasons.push(reason),
            decided => return decided,
        }
    }
    reasons.retain(|reason| !reason.is_empty());
    Decision::NoOpinion { reason: reasons.join("\n") }
}

/// The members of `system:masters` may do everything.
struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes, _: &dyn View) -> Decision {
        match is_master(&attributes.user) {
            true => Decision::Allow { reason: String::new() },
            false => Decision::pass(),
        }
    }
}

/// Whether a user may do everything.
pub(crate) fn is_master(user: &User) -> bool {
    user.is_in("system:masters")
}

/// All authorizers of one server, in order.
pub fn authorizers() -> Vec<Arc<dyn Authorizer>> {
    vec![Arc::new(Masters), Arc::new(node::NodeAuthorizer), Arc::new(Rbac::default())]
}
