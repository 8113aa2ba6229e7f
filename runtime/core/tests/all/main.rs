//! Containers on this kernel, as root, with Debian's static busybox for a root file system.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod attacks;
mod cgroups;
#[cfg(target_arch = "x86_64")]
mod elf;
mod labels;
mod load;
mod oci;
mod oci_bad;
mod oci_fields;
mod oci_mounts;
mod oci_notify;
mod oci_rootless;
mod oci_seccomp;
mod pod;
mod support;
mod sys;
mod systemd;
mod user;
