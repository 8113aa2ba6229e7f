//! The nodes that are still possible for a pod, and why the others are not.

use std::borrow::Cow;

/// A node's place in the snapshot's columns.
pub type NodeIndex = usize;

/// Why a plugin refuses a node, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What `kubectl describe` shows.
    pub text: Cow<'static, str>,
    /// Removing other pods would not help.
    pub unresolvable: bool,
}

impl Reason {
    /// Nothing but a change of the node or the pod can help.
    pub const fn unresolvable(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), unresolvable: true }
    }

    /// Other pods are in the way.
    pub const fn resolvable(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), unresolvable: false }
    }
}

/// A node that a plugin refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Refusal {
    pub node: NodeIndex,
    pub plugin: &'static str,
    /// At least one.
    pub reasons: Vec<Reason>,
}

/// Nodes that no plugin has refused yet, and those that one has.
#[derive(Debug)]
pub struct Candidates {
    open: Vec<NodeIndex>,
    refused: Vec<Refusal>,
    plugin: &'static str,
}

impl Candidates {
    pub(crate) fn all(nodes: usize) -> Self {
        Self { open: (0..nodes).collect(), refused: Vec::new(), plugin: "" }
    }

    /// Who refuses from now on.
    pub(crate) fn asked(&mut self, plugin: &'static str) {
        self.plugin = plugin;
    }

    /// The nodes that are still possible.
    pub fn open(&self) -> &[NodeIndex] {
        &self.open
    }

    pub(crate) fn refused(self) -> Vec<Refusal> {
        self.refused
    }

    /// Refuses each node for which there is a reason.
    pub fn refuse(&mut self, mut reason: impl FnMut(NodeIndex) -> Option<Reason>) {
        self.refuse_all(|node| reason(node).map(|r| vec![r]));
    }

    /// Refuses each node for which there are reasons, which must not be an empty list.
    pub fn refuse_all(&mut self, mut reasons: impl FnMut(NodeIndex) -> Option<Vec<Reason>>) {
        let (refused, plugin) = (&mut self.refused, self.plugin);
        self.open.retain(|node| match reasons(*node) {
            None => true,
            Some(reasons) => {
                refused.push(Refusal { node: *node, plugin, reasons });
                false
            }
        });
    }
}
