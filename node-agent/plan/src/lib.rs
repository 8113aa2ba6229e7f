//! What the node does next for the pods bound to it, and what it reports of them. Pure: pods and observations in, steps
//! and statuses out. No async, clock, randomness, environment or I/O.

pub mod admit;
pub mod clock;
mod decide;
pub mod dns;
pub mod env;
pub mod etc;
pub mod fields;
pub mod limits;
pub mod member;
mod memory;
pub mod observed;
pub mod pressure;
pub mod probe;
pub mod qos;
mod resize;
pub mod security;
pub mod services;
pub mod signal;
pub mod spec;
mod start;
pub mod status;
pub mod step;
mod stop;
pub mod volumes;

pub use decide::decide;
pub use memory::{begin, learn, run_id};
pub use observed::Observed;
pub use status::{NodeFacts, status};
pub use step::{Fact, Lifecycle, Note, ProbeKind, PullPolicy, Step};
