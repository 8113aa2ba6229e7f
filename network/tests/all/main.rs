//! Real links, rules and packets, in network namespaces of each test's own. Needs root.
#![allow(clippy::unwrap_used)]

mod conversation;
mod dns;
mod instances;
mod place;
mod sctp;
mod services;
mod tunnel;
mod updates;
