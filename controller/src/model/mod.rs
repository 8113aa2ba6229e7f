//! A small model of the API server and of a driver, for scenarios and for seeded simulation: one thread, no clock,
//! every step chosen by the caller.
//!
//! What may go wrong: a request is refused, or carried out and its answer lost; watches of different resources run
//! ahead of each other by any number of events, tell events again later, break and begin again with a list that is old
//! when it comes; decisions and their effects take many steps, between which the world moves on; live reads are old by
//! the time they are used; all controllers crash and begin with nothing. What a watch promises is kept: its own events
//! come in order, and none is missing between a list and what follows it.

mod cluster;
mod kubelet;
#[cfg(test)]
pub(crate) mod script;
mod server;
mod show;
pub mod simulate;
mod watch;
mod work;

pub use cluster::{Chaos, Check, Cluster, Decision, Step};
pub use server::{Reply, Said, Server};
