//! A group's want of memory.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};

use super::files::{read, write};
use super::{Group, Host, stats};
use crate::{Error, Result};

impl Host {
    /// Lets the kernel end all of the group's processes where it would end one for want of memory (v2 alone can).
    pub(crate) fn end_as_one(&self, group: &Group) {
        if let Some((dir, true)) = self.controller(group, "memory") {
            let _ = write(dir, "memory.oom.group", "1");
        }
    }

    /// How many processes of the group the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self, group: &Group) -> u64 {
        let Some((dir, v2)) = self.controller(group, "memory") else { return 0 };
        let file = if v2 { "memory.events" } else { "memory.oom_control" };
        read(dir, file).map_or(0, |text| stats::field(&text, "oom_kill").unwrap_or(0))
    }

    /// Watches for the group's want of memory. `None` where the host does not count it.
    pub(crate) fn watch_memory(&self, group: &Group) -> Result<Option<MemoryWatch>> {
        let Some((dir, v2)) = self.controller(group, "memory") else { return Ok(None) };
        let watch = if v2 { MemoryWatch::v2(dir) } else { MemoryWatch::v1(dir) };
        watch.map(Some).map_err(|e| Error::System("watch for the want of memory".to_owned(), e))
    }
}

/// Becomes readable when a group has, or may have, come to the end of its memory.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    fd: OwnedFd,
    dir: OwnedFd,
    /// v2 tells of other things too: how often it happened so far.
    count: Option<std::cell::Cell<u64>>,
}

impl MemoryWatch {
    /// Linux, Documentation/admin-guide/cgroup-v1/memory.rst, OOM Control.
    fn v1(dir: BorrowedFd<'_>) -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        use std::os::fd::AsRawFd;
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = openat(dir, "memory.oom_control", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        write(dir, "cgroup.event_control", &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()))?;
        Ok(Self { fd, dir: dir.try_clone_to_owned()?, count: None })
    }

    fn v2(dir: BorrowedFd<'_>) -> io::Result<Self> {
        use rustix::fs::inotify;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir)))?;
        inotify::add_watch(&fd, path.join("memory.events"), inotify::WatchFlags::MODIFY)?;
        Ok(Self { fd, dir: dir.try_clone_to_owned()?, count: Some(std::cell::Cell::new(Self::count(dir))) })
    }

    fn count(dir: BorrowedFd<'_>) -> u64 {
        read(dir, "memory.events").map_or(0, |text| stats::field(&text, "oom").unwrap_or(0))
    }

    /// Takes what is readable: whether it was that.
    pub(crate) fn happened(&self) -> bool {
        let mut drain = [0; 4096];
        let told = rustix::io::read(&self.fd, &mut drain).is_ok_and(|n| n > 0);
        match &self.count {
            Some(before) => {
                let now = Self::count(self.dir.as_fd());
                now > before.replace(now)
            }
            // The end of the group itself is told too.
            None => told && read(self.dir.as_fd(), "memory.oom_control").is_ok(),
        }
    }
}

impl AsFd for MemoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
