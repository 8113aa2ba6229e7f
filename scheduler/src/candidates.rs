//! The nodes that are still possible for a pod, and why the others are not.
//!
//! Why a node is refused is kept as bits into the refusing plugin's list of reasons: a pod that thousands of nodes
//! refuse costs one word a node.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// A node's place in the snapshot's columns.
pub type NodeIndex = usize;

/// A plugin's place in the list of plugins.
pub(crate) type PluginIndex = usize;

/// The lowest bits are reasons, those above the plugin's number plus one; zero is no refusal.
const REASON_BITS: u32 = 56;

/// How many reasons a plugin can tell apart in one decision.
pub const MAX_REASONS: usize = REASON_BITS as usize;

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

/// Why one node is refused; only [`Refusals`] can read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Why(u64);

impl Why {
    fn new(plugin: PluginIndex, bits: u64) -> Self {
        Self((plugin as u64 + 1) << REASON_BITS | (bits & ((1 << REASON_BITS) - 1)))
    }

    pub(crate) fn is_open(self) -> bool {
        self.0 == 0
    }

    fn plugin(self) -> PluginIndex {
        (self.0 >> REASON_BITS).saturating_sub(1) as usize
    }
}

/// The nodes that were refused, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusals {
    nodes: Vec<(NodeIndex, Why)>,
    tables: Tables,
}

/// Each plugin's name and reasons, by its number.
pub(crate) type Tables = BTreeMap<PluginIndex, (&'static str, Vec<Reason>)>;

impl Refusals {
    /// How many nodes were refused.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Each refused node with the plugin that refused it and its reasons, of which there is at least one.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIndex, &'static str, Vec<&Reason>)> {
        self.nodes.iter().map(|(node, why)| (*node, self.plugin(*why), self.reasons(*why).collect()))
    }

    /// The names of the plugins that refused any node.
    pub fn plugins(&self) -> Vec<&'static str> {
        let mut plugins: Vec<&'static str> = self.histogram().into_keys().map(|why| self.plugin(why)).collect();
        plugins.sort_unstable();
        plugins.dedup();
        plugins
    }

    /// The nodes where removing pods could help.
    pub fn resolvable(&self) -> impl Iterator<Item = NodeIndex> {
        let whys: HashMap<Why, bool> = self.histogram().into_keys().map(|why| (why, self.is_resolvable(why))).collect();
        self.nodes.iter().filter(move |(_, why)| whys.get(why) == Some(&true)).map(|(node, _)| *node)
    }

    /// Whether a node was refused for good: removing pods would not help.
    pub fn is_hopeless(&self, node: NodeIndex) -> bool {
        self.nodes.iter().any(|(n, why)| *n == node && !self.is_resolvable(*why))
    }

    /// How often each reason was given.
    pub fn texts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for (why, count) in self.histogram() {
            for reason in self.reasons(why) {
                *counts.entry(reason.text.as_ref()).or_default() += count;
            }
        }
        counts
    }

    fn histogram(&self) -> HashMap<Why, usize> {
        let mut counts = HashMap::new();
        for (_, why) in &self.nodes {
            *counts.entry(*why).or_default() += 1;
        }
        counts
    }

    fn plugin(&self, why: Why) -> &'static str {
        self.tables.get(&why.plugin()).map_or("", |(name, _)| name)
    }

    fn reasons(&self, why: Why) -> impl Iterator<Item = &Reason> {
        let table = self.tables.get(&why.plugin()).into_iter().flat_map(|(_, reasons)| reasons);
        table.enumerate().filter(move |(bit, _)| why.0 >> bit & 1 == 1).map(|(_, reason)| reason)
    }

    fn is_resolvable(&self, why: Why) -> bool {
        self.reasons(why).all(|reason| !reason.unresolvable)
    }

    /// Adds what others refused; where tables say the same plugin, they say the same.
    pub(crate) fn extend(&mut self, nodes: impl Iterator<Item = (NodeIndex, Why)>, tables: &Tables) {
        self.nodes.extend(nodes);
        for (plugin, table) in tables {
            self.tables.entry(*plugin).or_insert_with(|| table.clone());
        }
    }

    pub(crate) fn into_parts(self) -> (Vec<(NodeIndex, Why)>, Tables) {
        (self.nodes, self.tables)
    }
}

/// Nodes that no plugin has refused yet, and those that one has.
#[derive(Debug)]
pub struct Candidates {
    open: Vec<NodeIndex>,
    refused: Refusals,
    plugin: (PluginIndex, &'static str),
}

impl Candidates {
    /// Nodes of which none is refused yet.
    pub fn new(open: Vec<NodeIndex>) -> Self {
        Self { open, refused: Refusals::default(), plugin: (0, "") }
    }

    /// Who refuses from now on.
    pub(crate) fn asked(&mut self, number: PluginIndex, name: &'static str) {
        self.plugin = (number, name);
    }

    /// The nodes that are still possible.
    pub fn open(&self) -> &[NodeIndex] {
        &self.open
    }

    /// The nodes that are still possible, and the others.
    pub fn split(self) -> (Vec<NodeIndex>, Refusals) {
        (self.open, self.refused)
    }

    /// Refuses each node for which it is said to, all for the same reason.
    pub fn refuse(&mut self, reason: &Reason, mut refuses: impl FnMut(NodeIndex) -> bool) {
        self.refuse_for(std::slice::from_ref(reason), |node| u64::from(refuses(node)));
    }

    /// Refuses each node for which there is a bit: bit `n` stands for the reason of that number, and those beyond
    /// [`MAX_REASONS`] are not told. A plugin calls this once, and with the same reasons each time that it is asked
    /// about a pod.
    pub fn refuse_for(&mut self, reasons: &[Reason], mut why: impl FnMut(NodeIndex) -> u64) {
        let (number, name) = self.plugin;
        self.refused.tables.entry(number).or_insert_with(|| (name, reasons.to_vec()));
        let refused = &mut self.refused.nodes;
        self.open.retain(|node| match why(*node) {
            0 => true,
            bits => {
                refused.push((*node, Why::new(number, bits)));
                false
            }
        });
    }
}
