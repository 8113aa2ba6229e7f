//! Stories in short text, rules that must hold whatever happens, and figures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod measure;
mod never_overcommitted;
mod placement;
mod preemption;
mod queueing;
mod reference;
mod story;
