//! One hierarchy of cgroups, as it is mounted, and the making of groups in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::files::{read, words, write};
use crate::{Error, Result, failed};

/// The mode of a new cgroup's directory.
const DIRECTORY: Mode = Mode::from_raw_mode(0o755);
/// How often to begin anew to make a cgroup whose parents are removed meanwhile.
const MAKE_TRIES: usize = 100;

/// One mounted hierarchy.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// `cpu,cpuacct`, `systemd`, or empty for v2: the name of its directory in a container.
    pub(super) name: String,
    pub(super) controllers: Vec<String>,
    pub(super) v2: bool,
    pub(super) root: OwnedFd,
}

impl Hierarchy {
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat(&self.root, path, flags, Mode::empty()).map_err(failed(|| format!("open cgroup {}", path.display())))
    }

    pub(super) fn is_writable(&self, path: &Path) -> bool {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::accessat(&self.root, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    pub(super) fn is_for(&self, controller: &str) -> bool {
        self.name == controller || self.controllers.iter().any(|c| c == controller)
    }

    /// Makes a cgroup with its parents; its directory where that had to be opened.
    pub(super) fn make(&self, path: &Path) -> Result<Option<OwnedFd>> {
        let gone = |e: &Error| matches!(e, Error::System(_, e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)));
        // Whoever removes the last other cgroup in a parent removes the parent as well, at any moment.
        let mut tries = (0..MAKE_TRIES).map(|_| self.make_once(path));
        let made = tries.find(|made| !made.as_ref().is_err_and(gone));
        made.unwrap_or_else(|| Err(failed(|| format!("make cgroup {}", path.display()))(Errno::NOENT)))
    }

    fn make_once(&self, path: &Path) -> Result<Option<OwnedFd>> {
        let what = || format!("make cgroup {} ({})", path.display(), self.name);
        let cpuset = !self.v2 && self.controllers.iter().any(|c| c == "cpuset");
        // Most often the parents are there, and what they hand down is theirs already.
        if !self.v2 {
            match mkdirat(&self.root, path, DIRECTORY) {
                Ok(()) | Err(Errno::EXIST) if !cpuset => return Ok(None),
                Ok(()) => {
                    let parent = path.parent().unwrap_or(Path::new(""));
                    if inherit_cpuset(self.root.as_fd(), parent, path, true).map_err(|e| Error::System(what(), e))? {
                        return Ok(None);
                    }
                }
                Err(_) => {}
            }
        }
        let mut dir = self.open(Path::new(""))?;
        for component in path.components() {
            if self.v2 {
                enable(dir.as_fd(), &self.controllers);
            }
            let fresh = match mkdirat(&dir, component.as_os_str(), DIRECTORY) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(e) => return Err(failed(what)(e)),
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let child = openat(&dir, component.as_os_str(), flags, Mode::empty()).map_err(failed(what))?;
            if cpuset {
                inherit_cpuset(dir.as_fd(), Path::new(""), Path::new(component.as_os_str()), fresh)
                    .map_err(|e| Error::System(what(), e))?;
            }
            dir = child;
        }
        Ok(Some(dir))
    }
}

/// A new v1 cpuset is empty and takes no process until it has cpus and nodes. Whether the parent has some to hand down.
fn inherit_cpuset(dir: BorrowedFd<'_>, parent: &Path, child: &Path, fresh: bool) -> io::Result<bool> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (theirs, ours) = (parent.join(file), child.join(file));
        if fresh || read(dir, &ours)?.trim().is_empty() {
            let text = read(dir, &theirs)?;
            if text.trim().is_empty() {
                return Ok(false);
            }
            write(dir, &ours, text.trim())?;
        }
    }
    Ok(true)
}

/// Lets the children of a v2 cgroup use its controllers, one by one: one that refuses does not stop the others. Not where
/// processes are: some would make a threaded domain of it, below which nothing can be born (cgroups(7), Threads). (The
/// root, which may have both, has no type.)
fn enable(dir: BorrowedFd<'_>, controllers: &[String]) {
    let enabled = words(dir, "cgroup.subtree_control");
    let missing: Vec<&String> = controllers.iter().filter(|c| !enabled.contains(c)).collect();
    if missing.is_empty() || (read(dir, "cgroup.type").is_ok() && !words(dir, "cgroup.procs").is_empty()) {
        return;
    }
    for controller in missing {
        let _ = write(dir, "cgroup.subtree_control", &format!("+{controller}"));
    }
}

pub(super) struct Mounted {
    pub(super) root: String,
    pub(super) place: PathBuf,
    pub(super) name: String,
    pub(super) controllers: Vec<String>,
    pub(super) v2: bool,
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
pub(super) fn parse_mount(line: &str) -> Option<Mounted> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let (root, place) = (head.next()?.to_owned(), PathBuf::from(head.next()?));
    let mut tail = tail.split(' ');
    let v2 = match tail.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let options: Vec<&str> = tail.nth(1)?.split(',').collect();
    let named = options.iter().find_map(|o| o.strip_prefix("name="));
    let ignored =
        ["rw", "ro", "xattr", "noprefix", "clone_children", "nsdelegate", "memory_recursiveprot", "favordynmods"];
    let plain = |o: &&str| !o.contains('=') && !ignored.contains(o);
    let controllers: Vec<String> =
        if v2 { Vec::new() } else { options.iter().filter(|o| plain(o)).map(|o| (*o).to_owned()).collect() };
    let name = named.map_or_else(|| controllers.join(","), str::to_owned);
    Some(Mounted { root, place, name, controllers, v2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_become_hierarchies() {
        let line = |l: &str| parse_mount(l).map(|m| (m.name, m.controllers, m.v2, m.root));
        assert_eq!(
            line("30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"),
            Some(("cpu,cpuacct".into(), vec!["cpu".into(), "cpuacct".into()], false, "/".into()))
        );
        assert_eq!(
            line("31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd"),
            Some(("systemd".into(), vec![], false, "/".into()))
        );
        assert_eq!(
            line("32 25 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate"),
            Some((String::new(), vec![], true, "/".into()))
        );
        assert_eq!(line("33 25 0:29 / /x rw - tmpfs tmpfs rw"), None);
    }
}
