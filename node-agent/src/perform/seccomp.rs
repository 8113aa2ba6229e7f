//! System call filters: the default one, and those of the host's profile directory.

use std::fs;

use k8s_openapi::api::core::v1::{Container, Pod};
use oci_spec::runtime::LinuxSeccomp;

use crate::Config;

/// The filter of a container that asks for none of its own.
pub(super) fn default_profile(container: &Container) -> Result<Option<LinuxSeccomp>, String> {
    let set = node_plan::spec::capability_set(container);
    runtime_core::seccomp::default_profile(&set).map(Some).map_err(|error| crate::chain(&error))
}

/// The filter that a `Localhost` profile names, below `<data>/seccomp`.
pub(super) fn local_profile(config: &Config, pod: &Pod, container: &Container) -> Result<Option<LinuxSeccomp>, String> {
    let own = container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.seccomp_profile.as_ref());
    let name = own.or(of_pod).filter(|p| p.type_ == "Localhost").and_then(|p| p.localhost_profile.clone());
    let Some(name) = name else { return Ok(None) };
    if name.split('/').any(|part| part == "..") || name.starts_with('/') {
        return Err(format!("invalid seccomp profile path {name}"));
    }
    let path = config.data_dir.join("seccomp").join(&name);
    let bytes = fs::read(&path).map_err(|e| format!("cannot load seccomp profile \"{}\": {e}", path.display()))?;
    let profile = serde_json::from_slice(&bytes);
    profile.map(Some).map_err(|e| format!("cannot load seccomp profile \"{}\": {e}", path.display()))
}
