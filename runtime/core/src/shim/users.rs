//! The user namespace of a pod, and the namespaces that belong to it. They are made together, so that its root may mount
//! the file systems of each: proc, sysfs, mqueue.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::channel::Channel;
use crate::id_maps::{self, IdMaps};
use crate::launch::{NEW_IPC, NEW_NET, NEW_USER, NEW_UTS};
use crate::pod::PodConfig;
use crate::sys::{self, Forked};
use crate::{Error, Result, failed};

/// (inside, outside, length) for uids and gids alike.
pub(super) type Map = (u32, u32, u32);

const JOINED: [(&str, LinkNameSpaceType); 3] = [
    ("net", LinkNameSpaceType::Network),
    ("ipc", LinkNameSpaceType::InterProcessCommunication),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
];

/// Makes the namespaces and enters them, all but the user namespace: that is for containers alone.
pub(super) fn enter(config: &PodConfig, map: Map) -> Result<OwnedFd> {
    check(config, map)?;
    let what = || "make the pod's user namespace".to_owned();
    let (ours, theirs) = Channel::pair().map_err(|e| Error::System(what(), e))?;
    let made = sys::fork(NEW_USER | NEW_NET | NEW_IPC | NEW_UTS, None).map_err(|e| Error::System(what(), e))?;
    let Forked::Parent { pid, pidfd } = made else {
        // It lives until its namespaces have been entered.
        drop(ours);
        while matches!(theirs.receive(), Ok(Some(_))) {}
        sys::exit_now(0)
    };
    drop(theirs);
    let (inside, outside, length) = map;
    let text = format!("{inside} {outside} {length}\n");
    let entered = id_maps::map(Some(&IdMaps { uid: text.clone(), gid: text }), pid, &ours).and_then(|()| {
        let users = open(pid, "user")?;
        for (name, kind) in JOINED {
            move_into_link_name_space(open(pid, name)?.as_fd(), Some(kind)).map_err(failed(what))?;
        }
        Ok(users)
    });
    drop(ours);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    entered
}

fn open(pid: i32, name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{name}");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed(|| format!("open {path}")))
}

fn check(config: &PodConfig, (inside, outside, length): Map) -> Result<()> {
    let invalid = |what: &str| Err(Error::Invalid(format!("user_map: {what}")));
    if inside != 0 || length == 0 {
        return invalid("root must be mapped");
    }
    if outside == 0 || outside.checked_add(length).is_none() {
        return invalid("out of range");
    }
    if config.host_ipc || config.host_pid {
        return invalid("not with namespaces of the host");
    }
    Ok(())
}
