//! A request and a snapshot -> a response and a transaction; offered as a tower Service.
//!
//! The order of stages is fixed: audit -> authenticate -> impersonate -> flow control -> authorize -> decode and
//! convert -> default -> mutate (default and prune after each) -> prepare -> validate -> validating admission -> quota.

pub mod admission;
pub mod attributes;
pub mod authz;
pub mod entropy;
pub mod identity;
pub mod parts;
pub mod proxy;
pub mod server;
pub mod view;

pub use attributes::User;
pub use parts::Parts;
pub use server::{Config, Error, Server};
