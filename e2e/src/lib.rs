//! Proof of the whole: clusters of network namespaces on one machine, and stories told with the real kubectl.

pub mod cluster;
pub mod leak;
pub mod load;
pub mod machine;
pub mod qemu;
pub mod story;
pub mod writes;

/// The examples of CONTRIBUTING.md.
#[cfg(doctest)]
#[doc = include_str!("../../CONTRIBUTING.md")]
pub struct Contributing;
