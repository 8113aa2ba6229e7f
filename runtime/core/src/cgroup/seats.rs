//! How processes come into groups, and what they see of them.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::files::{words, write};
use super::hierarchy::Hierarchy;
use super::{Group, Host, opened};
use crate::{Error, Result, failed};

/// A descriptor of a group in the hierarchy of this name.
pub(crate) type Named = (String, OwnedFd);

/// The places of a process in cgroups, opened by somebody with the right to.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    /// The ways into v1 cgroups.
    pub(crate) doors: Vec<Named>,
    /// Detached mounts, for a /sys/fs/cgroup.
    pub(crate) mounts: Vec<Named>,
}

/// Goes through doors. A process of one thread that goes itself into a v1 cgroup need not wait; whoever puts another one
/// there (by `cgroup.procs`) waits until no process of the machine is about to fork or exec: a grace period of RCU,
/// milliseconds.
pub(crate) fn enter(doors: &[Named]) -> Result<()> {
    doors.iter().try_for_each(|(hierarchy, tasks)| {
        let written = rustix::io::write(tasks, b"0");
        written.map(|_| ()).map_err(failed(|| format!("enter the cgroup ({hierarchy})")))
    })
}

impl Host {
    /// Puts a process into the group, in every hierarchy.
    pub(crate) fn place(&self, group: &Group, pid: i32) -> Result<()> {
        self.place_in(group, pid, |_| true)
    }

    /// Puts a process into the group where it can not go by itself: v2.
    pub(crate) fn place_unified(&self, group: &Group, pid: i32) -> Result<()> {
        self.place_in(group, pid, |hierarchy| hierarchy.v2)
    }

    fn place_in(&self, group: &Group, pid: i32, wanted: impl Fn(&Hierarchy) -> bool) -> Result<()> {
        for (hierarchy, dir) in self.parts(group).filter(|(hierarchy, _)| wanted(hierarchy)) {
            let Some(dir) = opened(hierarchy, group, dir) else { continue };
            let what = || format!("put process {pid} into cgroup {} ({})", group.path.display(), hierarchy.name);
            match write(dir, "cgroup.procs", &pid.to_string()) {
                Ok(()) => {}
                // It has ended already: its own error says more.
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
                Err(e) => return Err(Error::System(what(), e)),
            }
        }
        Ok(())
    }

    /// How a process goes into the group's v1 cgroups by itself.
    pub(crate) fn doors(&self, group: &Group) -> Result<Vec<Named>> {
        let path = group.path.join("tasks");
        let open = |(hierarchy, _): (&Hierarchy, _)| {
            let what = || format!("enter cgroup {} ({})", group.path.display(), hierarchy.name);
            match openat(&hierarchy.root, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(tasks) => Some(Ok((hierarchy.name.clone(), tasks))),
                Err(Errno::NOENT | Errno::ACCESS) if !group.made => None,
                Err(e) => Some(Err(failed(what)(e))),
            }
        };
        self.parts(group).filter(|(hierarchy, _)| !hierarchy.v2).filter_map(open).collect()
    }

    /// What a first process needs to take its places in a group, and with `mounts` to show them.
    pub(crate) fn seats(&self, group: &Group, mounts: bool) -> Result<Seats> {
        Ok(Seats { doors: self.doors(group)?, mounts: if mounts { self.mounts(group)? } else { Vec::new() } })
    }

    /// Puts a process into the v2 cgroup where another one of the container is, should the group itself take none: it has
    /// controllers enabled for its children, or the first process has left it and somebody removed it.
    pub(crate) fn place_beside(&self, group: &Group, pid: i32, other: i32) -> Result<()> {
        if !self.is_unified() || self.takes_processes(group) {
            return self.place_unified(group, pid);
        }
        let text = fs::read_to_string(format!("/proc/{other}/cgroup")).unwrap_or_default();
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        self.place(&self.open(Path::new(path))?, pid)
    }

    /// Puts a process into cgroups below the group: for each, the controllers it goes for (none: all) and the path.
    /// Where nothing is said it goes into the group.
    pub(crate) fn place_below(&self, group: &Group, pid: i32, below: &[(Vec<String>, PathBuf)]) -> Result<()> {
        let known = |name: &String| self.dirs(group).any(|(hierarchy, _)| hierarchy.is_for(name));
        if let Some(unknown) = below.iter().flat_map(|(names, _)| names).find(|name| !known(name)) {
            return Err(Error::Invalid(format!("--cgroup: unknown controller {unknown}")));
        }
        let mut found = below.is_empty();
        for (hierarchy, dir) in self.dirs(group) {
            let wanted = |(names, _): &&(Vec<String>, PathBuf)| {
                names.is_empty() || names.iter().any(|name| hierarchy.is_for(name))
            };
            let choice = below.iter().rev().find(wanted);
            let path = choice.map_or(Path::new(""), |(_, path)| path);
            let put = |path: &Path| {
                write(dir, path.join("cgroup.procs"), &pid.to_string()).map_err(|e| {
                    let place = group.path.join(path);
                    let what = format!("error adding pid {pid} to cgroups: {} ({})", place.display(), hierarchy.name);
                    Error::System(what, e)
                })
            };
            match put(path) {
                Ok(()) => found |= choice.is_some(),
                // A path for all need not be there in each hierarchy.
                Err(Error::System(_, e))
                    if e.raw_os_error() == Some(libc::ENOENT) && choice.is_some_and(|(names, _)| names.is_empty()) =>
                {
                    put(Path::new(""))?;
                }
                Err(e) => return Err(e),
            }
        }
        let absent = || std::io::Error::from_raw_os_error(libc::ENOENT);
        let none = || Error::System(format!("error adding pid {pid} to cgroups: {}", group.path.display()), absent());
        if found { Ok(()) } else { Err(none()) }
    }

    /// Whether processes can be in the group itself: on v2 not once its children have controllers.
    pub(crate) fn takes_processes(&self, group: &Group) -> bool {
        let controlling = |dir: BorrowedFd<'_>| !words(dir, "cgroup.subtree_control").is_empty();
        self.birthplace(group).map_or(!self.is_unified(), |dir| !controlling(dir))
    }

    /// The v2 directory of a group, where processes can be born.
    pub(crate) fn birthplace<'a>(&self, group: &'a Group) -> Option<BorrowedFd<'a>> {
        let (hierarchy, dir) = self.hierarchies.iter().zip(&group.dirs).find(|(hierarchy, _)| hierarchy.v2)?;
        opened(hierarchy, group, dir)
    }

    /// Detached mounts of a group's directories, for a container's /sys/fs/cgroup.
    pub(crate) fn mounts(&self, group: &Group) -> Result<Vec<Named>> {
        let mut mounts = Vec::new();
        for (hierarchy, dir) in self.dirs(group) {
            let flags =
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            let mount = open_tree(dir, "", flags).map_err(failed(|| "clone the cgroup mount".to_owned()))?;
            let name = match hierarchy.name.as_str() {
                "" if self.is_unified() => String::new(),
                "" => "unified".to_owned(),
                name => name.to_owned(),
            };
            mounts.push((name, mount));
        }
        Ok(mounts)
    }
}
