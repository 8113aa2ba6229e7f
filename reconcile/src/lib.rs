//! The words that deciders share: World, Key, Decider, Effect, Outcome, owners, conditions. Pure.

pub mod conditions;
pub mod controller;
pub mod effect;
pub mod merge;
pub mod outcome;
pub mod owners;
pub mod pods;
pub mod resource;
pub mod selector;
pub mod template;
pub mod world;

pub use controller::{Change, Controller, Index, Planner, Selection, Watch};
pub use effect::{Effect, Notice, PatchKind, Preconditions, Propagation, Signing, Target, Told};
pub use outcome::{Access, Decider, Live, Outcome, Reason};
pub use resource::{Key, Kind, Object, Partial, Resource};
pub use world::{Answer, Failure, World};

pub use api::{ObjectName, Timestamp};
