//! The controller crate.
