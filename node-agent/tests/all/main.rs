//! The agent as a process of its own, in a network namespace of each test's own, with real containers. Needs root,
//! busybox and the example `agent`, which `cargo test` builds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crashes;
mod machine;
mod pods;
mod soak;
