//! NodeName: a pod that names its node runs there or nowhere.

use crate::{Candidates, Event, Plugin, Reason, Snapshot, Wanted};

const NOT_THIS_NODE: Reason = Reason::unresolvable("node(s) didn't match the requested node name");

pub(super) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &Wanted, snapshot: &Snapshot, nodes: &mut Candidates) {
        let Some(name) = &pod.node else { return };
        nodes.refuse(&NOT_THIS_NODE, |at| snapshot.node(at).is_none_or(|n| *n.name != **name));
    }

    fn heeds(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::Node { .. })
    }

    fn wakes_on(&self, _: &Wanted, event: &Event<'_>) -> bool {
        matches!(event, Event::Node { was: None, .. })
    }
}
