//! A /proc of our own: what is written there lands in the kernel, whatever a container has prepared (CVE-2025-52881).

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::{Error, Result, failed, resolve};

/// A /proc of the pid namespace we are in, mounted nowhere. Where the kernel lets us have none (the pid namespace or the
/// mounts are not of our user namespace), the host's, while that is still in sight.
pub(crate) fn private() -> Result<OwnedFd> {
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let made = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    });
    match made {
        Err(Errno::PERM) => host(),
        made => made.map_err(failed(|| "mount a private /proc".to_owned())),
    }
}

fn host() -> Result<OwnedFd> {
    let what = || "open /proc".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).map_err(failed(what))?;
    match rustix::fs::fstatfs(&proc).map_err(failed(what))?.f_type as i64 {
        resolve::PROC => Ok(proc),
        _ => Err(Error::Invalid("/proc is something else".to_owned())),
    }
}

/// Opens a file of a /proc to write to it. What is mounted on a part of the host's is not it (EXDEV).
pub(crate) fn open(proc: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Writes all of a text at once: the kernel takes it whole or not at all.
pub(crate) fn write(file: &OwnedFd, text: &str) -> rustix::io::Result<()> {
    if rustix::io::write(file, text.as_bytes())? == text.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// Sets a sysctl through a /proc.
pub(crate) fn write_sysctl(proc: &OwnedFd, name: &str, value: &str) -> Result<()> {
    let path = format!("sys/{}", sysctl_path(name));
    open(proc, &path).and_then(|file| write(&file, value)).map_err(failed(|| format!("write /proc/{path}")))
}

/// `net.ipv4.ip_forward` as a path. Slashes and dots are exchanged, as sysctl(8) does.
pub(crate) fn sysctl_path(name: &str) -> String {
    let slashes_first = name.find('/').is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
    if slashes_first {
        return name.to_owned();
    }
    let exchanged = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    name.chars().map(exchanged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_become_paths() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
