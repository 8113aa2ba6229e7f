//! The ids of a user namespace: who is who inside and outside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::channel::{Channel, Message};
use crate::launch::NEW_USER;
use crate::sys::{self, Forked};
use crate::{Error, Result, failed};

/// The text of uid_map and gid_map.
#[derive(Clone, Debug)]
pub(crate) struct IdMaps {
    pub(crate) uid: String,
    pub(crate) gid: String,
}

/// The text of uid_map and gid_map for these lines of a specification.
pub(crate) fn text(maps: &[LinuxIdMapping]) -> String {
    maps.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect()
}

/// Maps the ids of a new user namespace and tells its process. Who may not write the map himself has those of
/// /etc/subuid written by newuidmap(1), or can map himself alone.
pub(crate) fn map(maps: Option<&IdMaps>, pid: i32, channel: &Channel) -> Result<()> {
    let Some(maps) = maps else { return Ok(()) };
    for (file, helper, text) in [("uid_map", "newuidmap", &maps.uid), ("gid_map", "newgidmap", &maps.gid)] {
        write_map(pid, file, helper, text)?;
    }
    channel.send(&Message::Mapped).map_err(|e| Error::System("send to the container".to_owned(), e))
}

/// A user namespace that nobody lives in, for mounts that show ids by these maps.
pub(crate) fn user_namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let (ours, theirs) = Channel::pair().map_err(|e| Error::System("make a socket".to_owned(), e))?;
    let (pid, pidfd) = match sys::fork(NEW_USER, None).map_err(|e| Error::System("clone".to_owned(), e))? {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            drop(ours);
            // Until the maps are written, or the parent is gone.
            let _ = theirs.receive();
            let _ = theirs.receive();
            sys::exit_now(0)
        }
    };
    drop(theirs);
    let what = || "open the user namespace of a mount".to_owned();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = map(Some(maps), pid, &ours)
        .and_then(|()| rustix::fs::open(format!("/proc/{pid}/ns/user"), flags, Mode::empty()).map_err(failed(what)));
    drop(ours);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    namespace
}

fn write_map(pid: i32, file: &str, helper: &str, text: &str) -> Result<()> {
    let place = format!("/proc/{pid}/{file}");
    let what = |why: &str| format!("linux.{}Mappings: write{why}", file.trim_end_matches("_map"));
    let refused = match std::fs::write(&place, text) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => e,
        other => return other.map_err(|e| Error::System(what(""), e)),
    };
    let Err(why) = help(helper, pid, text) else { return Ok(()) };
    if file == "gid_map" {
        // Else one could drop a group that takes rights away (user_namespaces(7)).
        let denied = std::fs::write(format!("/proc/{pid}/setgroups"), "deny");
        return denied
            .and_then(|()| std::fs::write(&place, text))
            .map_err(|e| Error::System(what(&format!(" ({why})")), e));
    }
    Err(Error::System(what(&format!(" ({why})")), refused))
}

/// Has a map written by a program that may do so for the ids that /etc/subuid or /etc/subgid gives us; or else why not.
fn help(helper: &str, pid: i32, text: &str) -> std::result::Result<(), String> {
    let output = std::process::Command::new(helper).arg(pid.to_string()).args(text.split_whitespace()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!("{helper}: not installed")),
        Err(e) => Err(format!("{helper}: {e}")),
    }
}
