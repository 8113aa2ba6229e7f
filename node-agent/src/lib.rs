//! The node-agent crate.
