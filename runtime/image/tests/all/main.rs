//! The store against archives and registries made here: what goes in comes out, what lies is found out, and what dies half
//! way is gone on with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod auth;
mod collect;
#[path = "../../src/layer/corpus.rs"]
mod corpus;
mod executables;
mod export;
mod killed;
mod layers;
mod lies;
mod merged;
mod mirrors;
mod pull;
mod push;
mod referrers;
mod registry;
mod sample;
mod support;
mod users;
