//! The words that deciders share: World, Key, Decider, Effect, Outcome, owners, conditions. Pure.

pub mod outcome;

pub use outcome::{Decider, Outcome, Reason};
