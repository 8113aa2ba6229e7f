//! Containers on this kernel, as root, with Debian's static busybox for a root file system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod load;
mod oci;
mod oci_bad;
mod oci_fields;
mod oci_rootless;
mod pod;
mod support;
mod user;
