//! The agent that answers system calls in a container's stead (config-linux.md, The Container Process State).

use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use oci_spec::runtime::Linux;
use serde_json::json;

use super::container::State;
use crate::{Error, Result};

/// Sends the listener of a process to the agent that the specification names, with what is known of the process and of
/// its container.
pub(super) fn notify(linux: &Linux, state: &State, pid: i32, listener: &OwnedFd) -> Result<()> {
    let seccomp = linux.seccomp().as_ref();
    let path = seccomp.and_then(|s| s.listener_path().as_deref()).and_then(|path| path.to_str()).unwrap_or_default();
    let connected = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address)),
        None => UnixStream::connect(path),
    };
    let failed = |what: &str, e| Error::System(format!("{what} seccomp agent at {path}"), e);
    let agent = connected.map_err(|e| failed("failed to connect with", e))?;
    let document = json!({
        "ociVersion": state.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": seccomp.and_then(|s| s.listener_metadata().clone()).unwrap_or_default(),
        "state": state,
    });
    crate::channel::send_with_fds(agent.as_fd(), document.to_string().as_bytes(), &[listener.as_fd()])
        .map_err(|e| failed("send to the", e))
}
