//! Which node a pod runs on: a pure function of the pod, a snapshot of the nodes, the plugins and a seed.
//!
//! [`schedule`] decides for one pod; the dry run of a placement is the same call. [`Scheduler`] keeps the snapshot and
//! the queue, and is what the driver runs. A plugin is one file in [`plugins`] and one line in its list.

pub mod amounts;
mod candidates;
mod decision;
mod effects;
mod event;
mod local;
mod node;
mod planner;
pub mod plugins;
mod preemption;
mod queue;
pub mod snapshot;
mod wanted;

pub use candidates::{Candidates, MAX_REASONS, NodeIndex, Reason, Refusals};
pub use decision::{Decision, Placement, Verdict, schedule};
pub use event::Event;
pub use node::Node;
pub use planner::Scheduler;
pub use plugins::{Plugin, Plugins};
pub use preemption::{Preemption, Victims};
pub use snapshot::{Budget, Snapshot};
pub use wanted::{Counts, Footprint, Force, Group, HostPort, Namespaces, Near, NodeChoice, Said, Spread, Wanted};

/// The `spec.schedulerName` of the pods that are ours.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// The highest score that a plugin gives a node.
pub const MAX_SCORE: i64 = 100;
