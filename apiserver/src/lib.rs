//! A request and a snapshot -> a response and a transaction; offered as a tower Service.
//!
//! The order of stages is fixed: audit -> authenticate -> impersonate -> flow control -> authorize -> decode and
//! convert -> default -> mutate (default and prune after each) -> prepare -> validate -> validating admission -> quota.

pub mod admission;
mod answers;
pub mod attributes;
pub mod audit;
pub mod authz;
pub mod bootstrap;
mod cache;
mod call;
mod canonical;
mod conversion;
mod core;
mod crd;
mod discovery;
pub mod entropy;
mod hooks;
mod identify;
pub mod identity;
mod metrics;
mod negotiate;
pub mod parts;
mod perform;
mod plain;
mod policies;
mod protobuf;
pub mod proxy;
mod ranges;
mod read;
mod request;
mod respond;
mod reviews;
mod row;
mod rows;
mod serve;
pub mod server;
mod service;
mod stored;
pub mod view;
mod write;
mod yaml;

pub use attributes::User;
pub use parts::Parts;
pub use server::{Config, Error, Server};
