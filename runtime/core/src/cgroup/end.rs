//! The processes of a group: found, stopped, ended; and the end of the group itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::files::{read, write};
use super::hierarchy::Hierarchy;
use super::{Group, Host, opened};
use crate::{Error, Result, failed};

/// How long to wait for killed processes to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look at a v1 cgroup.
const INTERVAL: Duration = Duration::from_millis(2);

impl Host {
    /// Every process in the group and below it.
    pub(crate) fn processes(&self, group: &Group) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        if let Some(dir) = self.kill_directory(group) {
            collect_pids(dir, &mut pids, 0)
                .map_err(|e| Error::System(format!("read cgroup {}", group.path.display()), e))?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills every process in the group and below it; returns when none is left.
    pub(crate) fn kill(&self, group: &Group) -> Result<()> {
        if let Some((dir, true)) = self.controller(group, "freezer") {
            // Linux 5.14; the loop below covers older ones and waits.
            let _ = write(dir, "cgroup.kill", "1");
        }
        let start = Instant::now();
        loop {
            let pids = self.processes(group)?;
            if pids.is_empty() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let left = pids.len();
                return Err(Error::State(format!("{left} processes of cgroup {} do not die", group.path.display())));
            }
            // A frozen process dies only when it thaws.
            if self.is_frozen(group) {
                let _ = self.freeze(group, false);
            }
            end(&pids);
        }
    }

    /// Stops or continues all processes of a group.
    pub(crate) fn freeze(&self, group: &Group, frozen: bool) -> Result<()> {
        let Some((dir, v2)) = self.controller(group, "freezer") else {
            return Err(Error::State("there is no freezer cgroup here that we may use".to_owned()));
        };
        let (file, text, status) = match (v2, frozen) {
            (false, true) => ("freezer.state", "FROZEN", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED", "THAWED"),
            (true, true) => ("cgroup.freeze", "1", "frozen 1"),
            (true, false) => ("cgroup.freeze", "0", "frozen 0"),
        };
        let what = || format!("write {file} of cgroup {}", group.path.display());
        write(dir, file, text).map_err(|e| Error::System(what(), e))?;
        if v2 {
            return match await_event(dir, status) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Error::State(format!("{}: no effect", what()))),
                Err(e) => Err(Error::System(what(), e)),
            };
        }
        let start = Instant::now();
        loop {
            let now = read(dir, file).map_err(|e| Error::System(what(), e))?;
            if now.contains(status) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(Error::State(format!("{}: stays {}", what(), now.trim())));
            }
            // v1 freezes in steps that have to be asked for.
            let _ = write(dir, file, text);
            pause();
        }
    }

    /// Whether the group is frozen.
    pub(crate) fn is_frozen(&self, group: &Group) -> bool {
        self.controller(group, "freezer").is_some_and(|(dir, v2)| {
            let (file, wanted) = if v2 { ("cgroup.events", "frozen 1") } else { ("freezer.state", "FR") };
            read(dir, file).is_ok_and(|text| text.contains(wanted))
        })
    }

    /// Removes the group where nobody is in it, and nothing below it; whether it is gone.
    pub(crate) fn remove_empty(&self, group: &Group) -> bool {
        let gone = |(hierarchy, _): (&Hierarchy, _)| {
            matches!(unlinkat(&hierarchy.root, &group.path, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
        };
        self.parts(group).all(gone)
    }

    /// Removes the group and what is below it. The processes must be gone or going.
    pub(crate) fn remove(&self, group: &Group) -> Result<()> {
        for (hierarchy, dir) in self.parts(group) {
            let start = Instant::now();
            loop {
                match remove_tree(hierarchy.root.as_fd(), &group.path, 0) {
                    Ok(()) | Err(Errno::NOENT) => break,
                    // Then it is not of our making.
                    Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) if !group.made => break,
                    Err(Errno::BUSY) if start.elapsed() < PATIENCE => {
                        match opened(hierarchy, group, dir).filter(|_| hierarchy.v2) {
                            Some(dir) => drop(await_event(dir, "populated 0")),
                            None => pause(),
                        }
                    }
                    Err(e) => return Err(failed(|| format!("remove cgroup {}", group.path.display()))(e)),
                }
            }
        }
        Ok(())
    }

    /// Removes the parents of a group as far as they are empty, but not the topmost.
    pub(crate) fn remove_empty_parents(&self, group: &Group) {
        for (hierarchy, _) in self.parts(group) {
            for parent in group.path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
                if unlinkat(&hierarchy.root, parent, AtFlags::REMOVEDIR).is_err() {
                    break;
                }
            }
        }
    }

    /// Where a group's processes are looked for: wherever it is, if not where it should be.
    fn kill_directory<'a>(&'a self, group: &'a Group) -> Option<BorrowedFd<'a>> {
        let by = |name: &str| self.controller(group, name).map(|(dir, _)| dir);
        by("pids").or_else(|| by("freezer")).or_else(|| self.dirs(group).next().map(|(_, dir)| dir))
    }
}

fn collect_pids(dir: BorrowedFd<'_>, pids: &mut Vec<i32>, depth: usize) -> io::Result<()> {
    match read(dir, "cgroup.procs") {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        // A threaded v2 cgroup, or one that has just been removed.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV | libc::ENOENT)) => {}
        Err(e) => return Err(e),
    }
    for name in children(dir)? {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(child) = openat(dir, &name, flags, Mode::empty())
            && depth < 32
        {
            collect_pids(child.as_fd(), pids, depth + 1)?;
        }
    }
    Ok(())
}

fn children(dir: BorrowedFd<'_>) -> io::Result<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStrExt;
    let readable = match openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in Dir::new(readable)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
            names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        }
    }
    Ok(names)
}

fn remove_tree(root: BorrowedFd<'_>, path: &Path, depth: usize) -> rustix::io::Result<()> {
    match unlinkat(root, path, AtFlags::REMOVEDIR) {
        Err(Errno::BUSY | Errno::NOTEMPTY) if depth < 32 => {}
        other => return other,
    }
    let dir = openat(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for child in children(dir.as_fd()).map_err(|_| Errno::IO)? {
        match remove_tree(root, &path.join(child), depth + 1) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
    }
    unlinkat(root, path, AtFlags::REMOVEDIR)
}

/// Kills processes and waits until all have ended, or until some have had a while to.
fn end(pids: &[i32]) {
    let pid = |pid: &i32| rustix::process::Pid::from_raw(*pid);
    let open = |pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
    let living: Vec<OwnedFd> = pids.iter().filter_map(pid).filter_map(open).collect();
    for pidfd in &living {
        let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    }
    let while_ends = Timespec { tv_sec: 1, tv_nsec: 0 };
    for pidfd in &living {
        if !matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&while_ends)), Ok(1..)) {
            return;
        }
    }
}

/// Waits until a v2 cgroup's `cgroup.events` says so; false where it does not in time.
fn await_event(dir: BorrowedFd<'_>, wanted: &str) -> io::Result<bool> {
    let events = openat(dir, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let start = Instant::now();
    loop {
        // The kernel tells of changes since the last reading.
        let mut text = [0; 256];
        let n = rustix::io::pread(&events, &mut text, 0)?;
        if String::from_utf8_lossy(text.get(..n).unwrap_or_default()).contains(wanted) {
            return Ok(true);
        }
        let Some(left) = PATIENCE.checked_sub(start.elapsed()) else { return Ok(false) };
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left))?;
    }
}

/// Waits a little: a v1 cgroup tells nobody when it gets empty or frozen.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(INTERVAL);
}

/// Sends a signal; a process that is gone is no error.
pub(crate) fn signal(pid: i32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(pid);
    let open = |pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
    if let Some(pidfd) = pid.and_then(open) {
        let _ = crate::sys::signal(&pidfd, signal);
    }
}
