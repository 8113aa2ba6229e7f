//! A small model of the API server and of a driver, for scenarios and for seeded simulation: one thread, no clock,
//! every step chosen by the caller.

mod cluster;
#[cfg(test)]
pub(crate) mod script;
mod server;
mod show;
pub mod simulate;

pub use cluster::{Chaos, Cluster, Step};
pub use server::{Reply, Said, Server};
