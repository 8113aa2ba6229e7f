//! The namespaces of a specification: to be made, or to be joined.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, LinuxTimeOffset};
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::id_maps::{self, IdMaps};
use crate::launch::{NEW_IPC, NEW_MOUNT, NEW_NET, NEW_PID, NEW_USER, NEW_UTS};
use crate::{Error, Result, failed};

/// The namespaces of a container, opened or to be made.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// NEW_* flags.
    pub(super) new: u64,
    pub(super) new_cgroup: bool,
    /// The offsets of a new time namespace.
    pub(super) new_time: Option<String>,
    pub(super) join: Vec<(LinkNameSpaceType, OwnedFd)>,
    pub(super) pid: Option<OwnedFd>,
    pub(super) user: Option<OwnedFd>,
    /// The maps of a new user namespace.
    pub(super) user_map: Option<IdMaps>,
}

impl Namespaces {
    pub(super) fn of(linux: &Linux) -> Result<Self> {
        let listed = linux.namespaces().as_deref().unwrap_or_default();
        let mut namespaces = Self::default();
        for (at, namespace) in listed.iter().enumerate() {
            if listed.iter().skip(at + 1).any(|other| other.typ() == namespace.typ()) {
                let kind = serde_json::to_string(&namespace.typ()).unwrap_or_default();
                return Err(Error::Invalid(format!("linux.namespaces: {} occurs twice", kind.trim_matches('"'))));
            }
            namespaces.add(namespace, linux)?;
        }
        Ok(namespaces)
    }

    fn add(&mut self, namespace: &LinuxNamespace, linux: &Linux) -> Result<()> {
        match (namespace.typ(), path_of(namespace)) {
            (LinuxNamespaceType::Mount, None) => self.new |= NEW_MOUNT,
            (LinuxNamespaceType::Pid, None) => self.new |= NEW_PID,
            (LinuxNamespaceType::Network, None) => self.new |= NEW_NET,
            (LinuxNamespaceType::Ipc, None) => self.new |= NEW_IPC,
            (LinuxNamespaceType::Uts, None) => self.new |= NEW_UTS,
            (LinuxNamespaceType::User, None) => {
                self.new |= NEW_USER;
                self.user_map = Some(user_map(linux)?);
            }
            (LinuxNamespaceType::Cgroup, None) => self.new_cgroup = true,
            (LinuxNamespaceType::Time, None) => self.new_time = Some(time_offsets(linux)?),
            (LinuxNamespaceType::Pid, Some(path)) => self.pid = Some(open(path, LinuxNamespaceType::Pid)?),
            (LinuxNamespaceType::User, Some(path)) => self.user = Some(open(path, LinuxNamespaceType::User)?),
            (kind @ LinuxNamespaceType::Mount, Some(path)) => self.join(path, kind, LinkNameSpaceType::Mount)?,
            (kind @ LinuxNamespaceType::Network, Some(path)) => self.join(path, kind, LinkNameSpaceType::Network)?,
            (kind @ LinuxNamespaceType::Ipc, Some(path)) => {
                self.join(path, kind, LinkNameSpaceType::InterProcessCommunication)?;
            }
            (kind @ LinuxNamespaceType::Uts, Some(path)) => {
                self.join(path, kind, LinkNameSpaceType::HostNameAndNISDomainName)?;
            }
            (kind @ LinuxNamespaceType::Cgroup, Some(path)) => {
                self.join(path, kind, LinkNameSpaceType::ControlGroup)?
            }
            (kind @ LinuxNamespaceType::Time, Some(path)) => self.join(path, kind, LinkNameSpaceType::Time)?,
        }
        Ok(())
    }

    fn join(&mut self, path: &Path, kind: LinuxNamespaceType, flag: LinkNameSpaceType) -> Result<()> {
        self.join.push((flag, open(path, kind)?));
        Ok(())
    }
}

/// The path of a namespace that is to be joined.
pub(super) fn path_of(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// Opens a namespace; what is there must be one of that kind.
fn open(path: &Path, kind: LinuxNamespaceType) -> Result<OwnedFd> {
    let what = || format!("linux.namespaces: open {}", path.display());
    let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed(what))?;
    // CLONE_NEW*, as NS_GET_NSTYPE tells (ioctl_nsfs(2)).
    let wanted = match kind {
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Time => 0x80,
    };
    match crate::sys::namespace_kind(&namespace) {
        Ok(found) if found == wanted => Ok(namespace),
        Ok(_) | Err(_) => {
            Err(Error::Invalid(format!("linux.namespaces: {} is not a {kind} namespace", path.display())))
        }
    }
}

/// The maps of the specification. Where it says nothing at all, everybody is who he is outside, as far as we know him.
pub(super) fn user_map(linux: &Linux) -> Result<IdMaps> {
    let own = linux.uid_mappings().is_none() && linux.gid_mappings().is_none();
    let text = |field: &str, file: &str, maps: &Option<Vec<LinuxIdMapping>>| {
        let text = if own { own_ids(file)? } else { id_maps::text(maps.as_deref().unwrap_or_default()) };
        if text.is_empty() { Err(Error::Invalid(format!("linux.{field}: missing"))) } else { Ok(text) }
    };
    Ok(IdMaps {
        uid: text("uidMappings", "uid_map", linux.uid_mappings())?,
        gid: text("gidMappings", "gid_map", linux.gid_mappings())?,
    })
}

fn own_ids(file: &str) -> Result<String> {
    let path = format!("/proc/self/{file}");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::System(format!("read {path}"), e))?;
    Ok(everybody(&text))
}

/// A map of everybody that a map has inside to himself.
pub(super) fn everybody(map: &str) -> String {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (first, size) = (words.next()?, words.nth(1)?);
        Some(format!("{first} {first} {size}\n"))
    };
    map.lines().filter_map(line).collect()
}

/// The text of timens_offsets.
pub(super) fn time_offsets(linux: &Linux) -> Result<String> {
    let mut lines = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::Invalid(format!("linux.timeOffsets: {clock:?} is not monotonic or boottime")));
        }
        let (secs, nanosecs) = (LinuxTimeOffset::secs(offset), LinuxTimeOffset::nanosecs(offset));
        lines.push(format!("{clock} {} {}\n", secs.unwrap_or(0), nanosecs.unwrap_or(0)));
    }
    Ok(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<Namespaces> {
        Namespaces::of(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn namespaces_are_made_or_joined() {
        let made = read(serde_json::json!({
            "namespaces": [{"type": "mount"}, {"type": "time"}, {"type": "user"}, {"type": "network", "path": "/proc/self/ns/net"}],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 2}],
            "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 7}}
        }))
        .unwrap();
        assert_eq!(made.new, NEW_MOUNT | NEW_USER);
        assert_eq!(made.new_time.as_deref(), Some("boottime -5 7\n"));
        assert_eq!(made.user_map.map(|m| m.uid + &m.gid).as_deref(), Some("0 1000 1\n0 1000 2\n"));
        assert_eq!(made.join.len(), 1);
        let refused = |json, want: &str| {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        };
        let wrong = serde_json::json!([{"type": "mount"}, {"type": "ipc", "path": "/proc/self/ns/net"}]);
        refused(serde_json::json!({"namespaces": wrong}), "is not a ipc namespace");
        let half = serde_json::json!({"namespaces": [{"type": "mount"}, {"type": "user"}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 2}]});
        refused(half, "uidMappings: missing");
        let own = read(serde_json::json!({"namespaces": [{"type": "mount"}, {"type": "user"}]})).unwrap();
        assert!(own.user_map.is_some_and(|maps| maps.uid.starts_with("0 0 ")));
    }
}
