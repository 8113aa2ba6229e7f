//! Callers that are not root of the host: ordinary users, and root of a user namespace, which is what podman makes of
//! them. What they may not do is what the kernel refuses; here is only what has to be known before.

use std::path::PathBuf;

use crate::{Error, Result};

/// Where containers' states lie unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/trimtab/oci";

/// The map of a user namespace that is the host's (user_namespaces(7)).
const HOST_MAP: [&str; 3] = ["0", "0", "4294967295"];

/// Whether we are root, and of the host.
pub(super) fn is_host_root() -> bool {
    is_root() && !in_user_namespace()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn in_user_namespace() -> bool {
    // Without /proc there is no telling; then not much else works either.
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.split_whitespace().eq(HOST_MAP))
}

/// `--rootless`: whether cgroups that cannot be had are done without.
pub(super) fn parse(text: &str, host_root: bool) -> Result<bool> {
    match text {
        "auto" => Ok(!host_root),
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Error::Invalid(format!("--rootless: {other:?} is not true, false or auto"))),
    }
}

/// The place of states of this caller.
pub(super) fn default_root() -> PathBuf {
    let said = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    // Root of a user namespace may be so of a whole machine of his own, with a session like root's anywhere.
    let user = || in_user_namespace() && said("USER").is_none_or(|user| user != "root");
    match said("XDG_RUNTIME_DIR") {
        Some(dir) if !is_root() || user() => PathBuf::from(dir).join("trimtab/oci"),
        _ => PathBuf::from(DEFAULT_ROOT),
    }
}
