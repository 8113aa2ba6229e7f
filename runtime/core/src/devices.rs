//! What a container finds in /dev: the default nodes, its own terminals, the devices of its spec.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, mknodat, openat, statat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen,
    move_mount, open_tree,
};
use rustix::pty::OpenptFlags;

use crate::resolve::{Root, is_device};
use crate::sys::MountAttributes;
use crate::{Error, Result, failed};

/// Name, major, minor (OCI runtime-spec, config-linux.md, Default Devices).
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// The magic number of devpts (linux/magic.h).
const DEVPTS: i64 = 0x1cd1;
/// How deep a tree is copied.
const MAX_DEPTH: usize = 64;

/// Makes the default nodes and links.
pub(crate) fn fill(root: &Root) -> Result<()> {
    let dev = root.make_plain_dir(Path::new("/dev"))?;
    for (name, major, minor) in NODES {
        let node = Node { kind: FileType::CharacterDevice, major, minor, mode: 0o666, uid: 0, gid: 0 };
        make(&dev, Path::new(name), &node, &Path::new("/dev").join(name))?;
    }
    for (target, name) in LINKS {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed(|| format!("link /dev/{name}"))(e)),
        }
    }
    Ok(())
}

struct Node {
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Makes a device of the spec.
pub(crate) fn add(root: &Root, device: &LinuxDevice) -> Result<()> {
    // A link to the container's own, which is there already.
    if device.path() == Path::new("/dev/ptmx") {
        return Ok(());
    }
    let (dir, name) = root.parent(device.path())?;
    make(&dir, &name, &node_of(device)?, device.path())
}

/// Whether a device of the spec can be one.
pub(crate) fn check(device: &LinuxDevice) -> Result<()> {
    node_of(device).map(drop)
}

fn node_of(device: &LinuxDevice) -> Result<Node> {
    let bad = |what: &str| Error::Invalid(format!("linux.devices: {}: {what}", device.path().display()));
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(bad("type a is for rules only")),
    };
    let number = |n: i64| u32::try_from(n).map_err(|_| bad("number out of range"));
    Ok(Node {
        kind,
        major: number(device.major())?,
        minor: number(device.minor())?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// Makes the devices of a container with a user namespace outside of it, where that is allowed: in a tmpfs that is mounted
/// nowhere, by their numbers in the list. `None` where we are in a user namespace ourselves: then the host's nodes of that
/// name have to do.
pub(crate) fn make_outside(devices: &[LinuxDevice], linux: &Linux) -> Result<Option<OwnedFd>> {
    if devices.is_empty() {
        return Ok(None);
    }
    let what = || "make the devices of a user namespace".to_owned();
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(what))?;
    fsconfig_create(&context).map_err(failed(what))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let folder = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed(what))?;
    for (at, device) in devices.iter().enumerate() {
        let (mut node, name) = (node_of(device)?, PathBuf::from(at.to_string()));
        node.uid = outside(linux.uid_mappings().as_deref(), node.uid);
        node.gid = outside(linux.gid_mappings().as_deref(), node.gid);
        if !make_node(&folder, &name, &node)? {
            return Ok(None);
        }
        // As asked for, whatever our umask.
        rustix::fs::chmodat(&folder, &name, Mode::from_raw_mode(node.mode), AtFlags::empty()).map_err(failed(what))?;
    }
    Ok(Some(folder))
}

/// So many devices that [`make_outside`] made, each as a detached mount. The folder must be mounted in our own namespace.
pub(crate) fn made_outside(folder: &OwnedFd, count: usize) -> Result<Vec<OwnedFd>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = |at: usize| open_tree(folder, at.to_string(), flags);
    (0..count).map(|at| clone(at).map_err(failed(|| format!("take device {at} of a user namespace")))).collect()
}

/// Who an id of a container is outside; itself where nothing says so.
pub(crate) fn outside(maps: Option<&[LinuxIdMapping]>, id: u32) -> u32 {
    let inside = |map: &&LinuxIdMapping| id.checked_sub(map.container_id()).is_some_and(|n| n < map.size());
    let map = maps.and_then(|maps| maps.iter().find(inside));
    map.map_or(id, |map| map.host_id().saturating_add(id - map.container_id()))
}

/// Makes a node. In a user namespace nobody may do that: the host's node at `of_host` is mounted instead.
fn make(dir: &OwnedFd, name: &Path, node: &Node, of_host: &Path) -> Result<()> {
    if make_node(dir, name, node)? { Ok(()) } else { bind_host_node(dir, name, node, of_host) }
}

/// Makes a node; false where we may not.
fn make_node(dir: &OwnedFd, name: &Path, node: &Node) -> Result<bool> {
    let what = || format!("make device {}", name.display());
    let number = rustix::fs::makedev(node.major, node.minor);
    match mknodat(dir, name, node.kind, Mode::from_raw_mode(node.mode), number) {
        Ok(()) => {}
        // Of the image, or a default node listed again: good if it is what was asked for.
        Err(Errno::EXIST) => {
            let there = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(what))?;
            if FileType::from_raw_mode(there.st_mode) != node.kind || there.st_rdev != number {
                return Err(Error::Invalid(format!("{}: something else is there", what())));
            }
            return Ok(true);
        }
        Err(Errno::PERM) => return Ok(false),
        Err(e) => return Err(failed(what)(e)),
    }
    if node.uid != 0 || node.gid != 0 {
        let (uid, gid) = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(what))?;
    }
    Ok(true)
}

fn bind_host_node(dir: &OwnedFd, name: &Path, wanted: &Node, of_host: &Path) -> Result<()> {
    let what = || format!("bind device {}", name.display());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    openat(dir, name, flags, Mode::from_raw_mode(0o666)).map_err(failed(what))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let node = open_tree(rustix::fs::CWD, of_host, flags).map_err(failed(what))?;
    let there = rustix::fs::fstat(&node).map_err(failed(what))?;
    let number = rustix::fs::makedev(wanted.major, wanted.minor);
    if FileType::from_raw_mode(there.st_mode) != wanted.kind || there.st_rdev != number {
        return Err(Error::Invalid(format!("{}: {} is something else", what(), of_host.display())));
    }
    let set = (MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC).bits().into();
    crate::sys::mount_setattr(node.as_fd(), false, &MountAttributes { set, ..Default::default() })
        .map_err(|e| Error::System(what(), e))?;
    move_mount(&node, "", dir, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed(what))
}

/// A new terminal of the container's own devpts, bound to /dev/console: (master, its other side).
pub(crate) fn console(root: &Root) -> Result<(OwnedFd, OwnedFd)> {
    let what = || "bind /dev/console".to_owned();
    let (master, slave) = terminal(root)?;
    let target = root.make_file(Path::new("/dev/console"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(&slave, "", flags).map_err(failed(what))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mount, "", &target, "", flags).map_err(failed(what))?;
    Ok((master, slave))
}

/// A new terminal of the devpts at /dev/pts. The other side is taken by TIOCGPTPEER, never by a name that the
/// container could swap (CVE-2025-52565).
pub(crate) fn terminal(root: &Root) -> Result<(OwnedFd, OwnedFd)> {
    let what = || "open a terminal in /dev/pts".to_owned();
    let place = root.open(Path::new("/dev/pts/ptmx"), OFlags::PATH | OFlags::NOFOLLOW).map_err(failed(what))?;
    let devpts = rustix::fs::fstatfs(&place).map_err(failed(what))?.f_type as i64 == DEVPTS;
    if !devpts || !is_device(&place, 5, 2).map_err(failed(what))? {
        return Err(Error::Invalid("/dev/pts/ptmx is not a terminal multiplexer".to_owned()));
    }
    // Verified above; a second look-up could be another file, so the verdict is repeated on what was opened.
    let master = root
        .open(Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW)
        .map_err(failed(what))?;
    if !is_device(&master, 5, 2).map_err(failed(what))? {
        return Err(Error::Invalid("/dev/pts/ptmx is not a terminal multiplexer".to_owned()));
    }
    rustix::pty::unlockpt(&master).map_err(failed(what))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(failed(what))?;
    Ok((master, slave))
}

/// Copies directories, files and links from one directory to another, with owners and modes.
pub(crate) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    let readable = openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::new(readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_entry(from, to, name, depth)?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr, depth: usize) -> io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let (below, copy) = (openat(from, name, dir, Mode::empty())?, openat(to, name, dir, Mode::empty())?);
            copy_tree(below.as_fd(), copy.as_fd(), depth + 1)?;
        }
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut input = std::fs::File::from(openat(from, name, read, Mode::empty())?);
            let mut output = std::fs::File::from(openat(to, name, write, mode)?);
            io::copy(&mut input, &mut output)?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            symlinkat(target.as_c_str(), to, name)?;
        }
        _ => return Ok(()),
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_of_devices_are_mapped() {
        let maps: Vec<LinuxIdMapping> = serde_json::from_str(
            r#"[{"containerID":0,"hostID":1000,"size":1},{"containerID":10,"hostID":5000,"size":5}]"#,
        )
        .unwrap();
        assert_eq!([0, 12, 15].map(|id| outside(Some(&maps), id)), [1000, 5002, 15]);
        assert_eq!(outside(None, 7), 7);
    }
}
