//! The plan crate.
