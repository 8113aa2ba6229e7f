//! The first process of a pod's shared pid namespace: it reaps, and does nothing else. It runs from our own executable,
//! so there is no pause image; it keeps no right, no file and no view of the host.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};
use rustix::process::WaitOptions;

use crate::cgroup::{self, Group, Host};
use crate::channel::Channel;
use crate::launch::{NEW_MOUNT, NEW_PID, in_user_namespace};
use crate::sys::{self, Forked};
use crate::{Error, Result, failed};

/// Nobody.
const UID: u32 = 65_534;

/// The running process and its namespace.
#[derive(Debug)]
pub(super) struct Pause {
    pub(super) namespace: OwnedFd,
}

/// Starts it in the pod's cgroup, and in its user namespace where it has one; returns when it has given everything up.
pub(super) fn start(user: Option<BorrowedFd<'_>>, host: &Host, group: &Group) -> Result<Pause> {
    let what = || "start the pod's first process".to_owned();
    let (parent, child) = Channel::pair().map_err(|e| Error::System(what(), e))?;
    let new = NEW_PID | NEW_MOUNT;
    let doors = host.doors(group)?;
    // Root of a user namespace may not put a child into a cgroup of ours.
    let birthplace = host.birthplace(group).filter(|_| user.is_none());
    let forked = match user {
        Some(user) => in_user_namespace(user, None, new)?,
        None => sys::fork(new, birthplace).map_err(|e| Error::System(what(), e))?,
    };
    match forked {
        Forked::Child => {
            drop(parent);
            let said = cgroup::enter(&doors).and_then(|()| renounce()).map_or_else(
                |e| crate::channel::Message::Failed { stage: e.to_string(), errno: 0 },
                |()| crate::channel::Message::Ready,
            );
            let ready = matches!(said, crate::channel::Message::Ready);
            let _ = child.send(&said);
            if !ready || sys::close_from(0).is_err() {
                sys::exit_now(1);
            }
            reap()
        }
        Forked::Parent { pid, pidfd } => {
            drop(child);
            let placed = if birthplace.is_some() { Ok(()) } else { host.place_unified(group, pid) };
            let outcome = placed.and_then(|()| match parent.receive() {
                Ok(Some(crate::channel::Message::Ready)) => Ok(()),
                Ok(Some(crate::channel::Message::Failed { stage, .. })) => Err(Error::State(stage)),
                Ok(_) => Err(Error::State("the pod's first process ended".to_owned())),
                Err(e) => Err(Error::System(what(), e)),
            });
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = outcome.and_then(|()| {
                rustix::fs::open(format!("/proc/{pid}/ns/pid"), flags, Mode::empty()).map_err(failed(what))
            });
            if namespace.is_err() {
                let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            }
            Ok(Pause { namespace: namespace? })
        }
    }
}

/// An empty root, no rights, nobody's identity.
fn renounce() -> Result<()> {
    let what = || "renounce".to_owned();
    sys::reset_signals();
    rustix::process::setsid().map_err(failed(what))?;
    let _ = rustix::thread::set_name(c"trimtab-pause");
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(failed(what))?;
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(what))?;
    fsconfig_set_string(&context, "nr_inodes", "1").map_err(failed(what))?;
    fsconfig_create(&context).map_err(failed(what))?;
    let root =
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).map_err(failed(what))?;
    move_mount(root.as_fd(), "", rustix::fs::CWD, "/tmp", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(failed(what))?;
    rustix::process::fchdir(&root).map_err(failed(what))?;
    rustix::process::pivot_root(".", ".").map_err(failed(what))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed(what))?;
    rustix::thread::set_thread_groups(&[]).map_err(failed(what))?;
    let (uid, gid) = (Uid::from_raw(UID), Gid::from_raw(UID));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed(what))?;
    // From root to somebody else all capabilities go.
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed(what))?;
    rustix::thread::set_no_new_privs(true).map_err(failed(what))
}

/// Waits for orphans for ever. Without any it sleeps: as the first process of its namespace it only gets signals it
/// has a handler for, and it has none.
fn reap() -> ! {
    loop {
        if let Err(rustix::io::Errno::CHILD) = rustix::process::wait(WaitOptions::empty()) {
            sys::wait_for_child();
        }
    }
}
