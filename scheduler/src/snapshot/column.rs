//! One resource of all nodes.

use crate::NodeIndex;

/// One resource of all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// What each node has for pods.
    pub allocatable: Vec<i64>,
    /// What of it is not requested; below zero if pods were placed past the scheduler.
    pub free: Vec<i64>,
}

impl Column {
    pub(super) fn push(&mut self, amount: i64) {
        self.allocatable.push(amount);
        self.free.push(amount);
    }

    pub(super) fn swap_remove(&mut self, node: NodeIndex) {
        self.allocatable.swap_remove(node);
        self.free.swap_remove(node);
    }

    pub(super) fn take(&mut self, node: NodeIndex, amount: i64) {
        if let Some(free) = self.free.get_mut(node) {
            *free -= amount;
        }
    }

    pub(super) fn resize(&mut self, node: NodeIndex, amount: i64) {
        if let (Some(allocatable), Some(free)) = (self.allocatable.get_mut(node), self.free.get_mut(node)) {
            *free += amount - *allocatable;
            *allocatable = amount;
        }
    }

    /// What a node has.
    pub fn allocatable(&self, node: NodeIndex) -> i64 {
        self.allocatable.get(node).copied().unwrap_or(0)
    }

    /// What a node has left.
    pub fn free(&self, node: NodeIndex) -> i64 {
        self.free.get(node).copied().unwrap_or(0)
    }

    /// What of a node is requested.
    pub fn used(&self, node: NodeIndex) -> i64 {
        self.allocatable(node) - self.free(node)
    }
}
