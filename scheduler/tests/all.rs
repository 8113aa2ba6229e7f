//! Stories in short text, and rules that must hold whatever happens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod never_overcommitted;
mod placement;
mod preemption;
mod queueing;
mod reference;
mod story;
