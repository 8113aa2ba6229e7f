//! Role-based access control (`plugin/pkg/auth/authorizer/rbac`), from an index that is made anew when a role or a
//! binding changed.

use std::sync::Arc;

use parking_lot::RwLock;

use super::index::{Index, aggregate, resources};
use super::{Authorizer, Decision};
use crate::attributes::Attributes;
use crate::view::View;

type Revisions = [u64; 4];

/// The authorizer of one server.
#[derive(Default)]
pub(super) struct Rbac(RwLock<Option<(Revisions, Arc<Index>)>>);

impl Rbac {
    fn index(&self, view: &dyn View) -> Arc<Index> {
        let now = resources().map(|resource| view.revision(&resource));
        if let Some((made, index)) = &*self.0.read()
            && *made == now
        {
            return Arc::clone(index);
        }
        // The revisions were read first: an index of something newer is only made once more.
        let index = Arc::new(Index::of(view));
        *self.0.write() = Some((now, Arc::clone(&index)));
        index
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes, view: &dyn View) -> Decision {
        let namespace = attributes.resource.as_ref().map_or("", |target| target.object.namespace.as_str());
        match self.index(view).find(&attributes.user, namespace, |rule| rule.allows(attributes)) {
            Ok(source) => Decision::Allow { reason: format!("RBAC: allowed by {source}") },
            Err(errors) if errors.is_empty() => Decision::pass(),
            Err(errors) => Decision::NoOpinion { reason: format!("rbac: RBAC: {}", aggregate(&errors)) },
        }
    }
}
