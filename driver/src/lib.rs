//! The driver crate.
