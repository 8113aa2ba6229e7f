//! The agent that answers system calls in a container's stead (config-linux.md, The Container Process State).

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use oci_spec::runtime::Linux;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::json;

use crate::state::State;
use crate::{Error, Result};

/// How long an agent may keep us waiting. A shim has other containers to look after.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends the listener of a process to the agent that the specification names, with what is known of the process and of
/// its container.
pub(crate) fn notify(linux: &Linux, state: &State, pid: i32, listener: &OwnedFd) -> Result<()> {
    let seccomp = linux.seccomp().as_ref();
    let path = seccomp.and_then(|s| s.listener_path().as_deref()).and_then(|path| path.to_str()).unwrap_or_default();
    let failed = |what: &str, e| Error::System(format!("{what} seccomp agent at {path}"), e);
    let agent = meet(path).map_err(|e| failed("failed to connect with", e.into()))?;
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

/// Connects with an agent at a path, or at `@` and an abstract name (unix(7)).
fn meet(path: &str) -> rustix::io::Result<OwnedFd> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        None => SocketAddrUnix::new(path)?,
    };
    let agent = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&agent, Timeout::Send, Some(PATIENCE))?;
    connect(&agent, &address)?;
    Ok(agent)
}
