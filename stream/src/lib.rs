//! The stream crate.
