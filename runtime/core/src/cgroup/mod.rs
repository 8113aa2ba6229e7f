//! Control groups by directory descriptor: v1, v2, and hybrid hosts with both. A cgroup here is one path below the root
//! of every hierarchy.

mod device_program;
mod end;
mod files;
mod hierarchy;
mod limits;
mod memory_watch;
mod report;
mod seats;
mod stats;
mod systemd;

use std::cell::OnceCell;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use rustix::fs::{AtFlags, Mode, OFlags, Uid, chownat};
use rustix::io::Errno;

use crate::{Error, Result, failed};
use files::{own_path, own_path_of, words};
use hierarchy::{Hierarchy, parse_mount};

pub(crate) use end::signal;
pub(crate) use files::{read, write};
pub(crate) use seats::{Named, Seats, enter};
pub(crate) use stats::Stats;
pub(crate) use systemd::{Placeholder, Unit};

/// All hierarchies of this host.
#[derive(Debug)]
pub(crate) struct Host {
    hierarchies: Vec<Hierarchy>,
}

/// A cgroup that exists: its directory in every hierarchy, opened when it is needed; `None` where it has none.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    dirs: Vec<OnceCell<Option<OwnedFd>>>,
    /// We have made it: it is missing nowhere else.
    made: bool,
}

impl Host {
    /// Reads the mounts of this process.
    pub(crate) fn discover() -> Result<Self> {
        let mounts = read(rustix::fs::CWD, "/proc/self/mountinfo")
            .map_err(|e| Error::System("read /proc/self/mountinfo".to_owned(), e))?;
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in mounts.lines().filter_map(parse_mount) {
            let known = hierarchies.iter().any(|h| h.v2 == mount.v2 && h.name == mount.name);
            // A second mount, or a mount of something that is not the hierarchy's root.
            if known || mount.root != "/" {
                continue;
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(root) = rustix::fs::open(&mount.place, flags, Mode::empty()) else { continue };
            let controllers = if mount.v2 { words(root.as_fd(), "cgroup.controllers") } else { mount.controllers };
            hierarchies.push(Hierarchy { name: mount.name, controllers, v2: mount.v2, root });
        }
        Ok(Self { hierarchies })
    }

    /// A host whose cgroups are left alone.
    pub(crate) fn without() -> Self {
        Self { hierarchies: Vec::new() }
    }

    /// Whether there is nothing but v2.
    pub(crate) fn is_unified(&self) -> bool {
        !self.hierarchies.is_empty() && self.hierarchies.iter().all(|h| h.v2)
    }

    /// Makes a cgroup with its parents and gives it limits. Limits for which the host has no controller are an error
    /// that names them.
    pub(crate) fn create(&self, path: &Path, resources: Option<&LinuxResources>) -> Result<Group> {
        let group = self.begin(path)?;
        self.finish(&group, resources)?;
        Ok(group)
    }

    /// Makes as much of a cgroup as its first process can be born in: its v2 directory.
    pub(crate) fn begin(&self, path: &Path) -> Result<Group> {
        let dirs = self.hierarchies.iter().map(|_| OnceCell::new()).collect();
        let group = Group { path: clean(path)?, dirs, made: true };
        self.make(&group, |hierarchy| hierarchy.v2)?;
        Ok(group)
    }

    /// Makes the rest of it, and gives it limits.
    pub(crate) fn finish(&self, group: &Group, resources: Option<&LinuxResources>) -> Result<()> {
        self.make(group, |hierarchy| !hierarchy.v2)?;
        resources.map_or(Ok(()), |resources| self.apply(group, resources))
    }

    fn make(&self, group: &Group, wanted: impl Fn(&Hierarchy) -> bool) -> Result<()> {
        for (hierarchy, dir) in self.hierarchies.iter().zip(&group.dirs).filter(|(hierarchy, _)| wanted(hierarchy)) {
            let made = match hierarchy.make(&group.path) {
                Ok(Some(made)) => Some(made),
                Ok(None) => continue,
                // A hierarchy we may not write to takes no part.
                Err(Error::System(_, e)) if matches!(e.raw_os_error(), Some(libc::EROFS | libc::EACCES)) => None,
                Err(e) => return Err(e),
            };
            let _ = dir.set(made);
        }
        Ok(())
    }

    /// An existing cgroup, as far as it exists and we may write to it.
    pub(crate) fn open(&self, path: &Path) -> Result<Group> {
        let dirs = self.hierarchies.iter().map(|_| OnceCell::new()).collect();
        Ok(Group { path: clean(path)?, dirs, made: false })
    }

    /// The hierarchies that a group may be in, with what is known of its directory there.
    fn parts<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = (&'a Hierarchy, &'a OnceCell<Option<OwnedFd>>)> {
        self.hierarchies.iter().zip(&group.dirs).filter(|(_, dir)| dir.get().is_none_or(Option::is_some))
    }

    /// The hierarchies that a group is in, with its directory there.
    fn dirs<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = (&'a Hierarchy, BorrowedFd<'a>)> {
        self.parts(group).filter_map(|(hierarchy, dir)| Some((hierarchy, opened(hierarchy, group, dir)?)))
    }

    /// The cgroup that somebody who is not root may make others in (cgroups(7), Delegation): on v2, of this process or,
    /// better, its parent, which can give controllers to its children as long as no process is in it.
    pub(crate) fn delegated(&self) -> Option<PathBuf> {
        let hierarchy = self.hierarchies.iter().find(|h| h.v2)?;
        let own = own_path_of(|line| line.starts_with("0::"))?;
        let own = own.strip_prefix("/").ok()?;
        let ours = |path: &&Path| hierarchy.is_writable(path) && hierarchy.is_writable(&path.join("cgroup.procs"));
        own.parent().into_iter().chain([own]).find(ours).map(|path| Path::new("/").join(path))
    }

    /// Where a path that is not absolute starts, as with runc: at our own cgroup, but with nothing except v2 beside it. What
    /// we are in ourselves cannot give controllers to its children (cgroups(7), "no internal processes").
    pub(crate) fn own(&self) -> PathBuf {
        if !self.is_unified() {
            return own_path();
        }
        let own = own_path_of(|line| line.starts_with("0::")).unwrap_or_default();
        own.parent().map_or_else(|| "/".into(), Path::to_path_buf)
    }

    /// Gives a group of a host with nothing but v2 to a user, as far as that is delegation (config-linux.md, Cgroup
    /// ownership; cgroups(7), Delegation): its limits stay ours.
    pub(crate) fn give(&self, group: &Group, user: u32) -> Result<()> {
        let Some(dir) = self.birthplace(group).filter(|_| self.is_unified()) else { return Ok(()) };
        let delegated = fs::read_to_string("/sys/kernel/cgroup/delegate");
        let delegated = delegated.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads".to_owned());
        let files = delegated.lines().map(|file| (file, AtFlags::SYMLINK_NOFOLLOW));
        for (file, flags) in files.chain([("", AtFlags::EMPTY_PATH)]) {
            match chownat(dir, file, Some(Uid::from_raw(user)), None, flags) {
                // Not every cgroup has each.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(failed(|| format!("give cgroup {} to {user}", group.path.display()))(e)),
            }
        }
        Ok(())
    }

    /// Whether a group is in no hierarchy.
    pub(crate) fn is_nowhere(&self, group: &Group) -> bool {
        self.dirs(group).next().is_none()
    }

    /// Refuses a cgroup that something is in already: it would be limited, frozen and killed with the container.
    pub(crate) fn refuse_used(&self, path: &Path) -> Result<()> {
        let group = self.open(path)?;
        // Most often it is not there, which need not be asked everywhere.
        let telling = |hierarchy: &Hierarchy| hierarchy.v2 || hierarchy.is_for("pids") || hierarchy.is_for("freezer");
        let mut told = self.parts(&group).filter(|(hierarchy, _)| telling(hierarchy)).peekable();
        if told.peek().is_some() && !told.any(|(hierarchy, dir)| opened(hierarchy, &group, dir).is_some()) {
            return Ok(());
        }
        let place = group.path.display();
        match self.processes(&group)?.len() {
            0 if self.is_frozen(&group) => {
                Err(Error::State(format!("cgroup {place}: container's cgroup unexpectedly frozen")))
            }
            0 => Ok(()),
            n => Err(Error::State(format!("cgroup {place}: container's cgroup is not empty: {n} processes found"))),
        }
    }

    /// Changes limits.
    pub(crate) fn apply(&self, group: &Group, resources: &LinuxResources) -> Result<()> {
        limits::apply(resources, &|controller| self.controller(group, controller))
    }

    /// Changes limits of a group that systemd has made.
    pub(crate) fn apply_to_unit(&self, unit: &Unit, group: &Group, resources: &LinuxResources) -> Result<()> {
        let files = limits::files(resources, &|controller| self.controller(group, controller))?;
        unit.set(&files, self.unit_devices(resources).as_deref())?;
        self.apply(group, resources)
    }

    /// The rules for devices that systemd has to know: where it writes them, which is on v1.
    pub(crate) fn unit_devices(&self, resources: &LinuxResources) -> Option<Vec<LinuxDeviceCgroup>> {
        let v1 = self.hierarchies.iter().any(|h| !h.v2 && h.controllers.iter().any(|c| c == "devices"));
        let rules = resources.devices().as_deref().filter(|rules| v1 && !rules.is_empty());
        rules.map(device_program::with_defaults)
    }

    /// The directory of a group where a controller is in charge, and whether that is v2.
    fn controller<'a>(&'a self, group: &'a Group, controller: &str) -> Option<(BorrowedFd<'a>, bool)> {
        self.hierarchies.iter().zip(&group.dirs).find_map(|(hierarchy, dir)| {
            // Device rules are a program on v2, the freezer is part of every v2 cgroup.
            let v1 = || self.dirs(group).any(|(hierarchy, _)| !hierarchy.v2);
            let core = hierarchy.v2 && matches!(controller, "devices" | "freezer" | "cgroup") && !v1();
            let name = if hierarchy.v2 && controller == "blkio" { "io" } else { controller };
            if !core && !hierarchy.controllers.iter().any(|c| c == name) {
                return None;
            }
            Some((opened(hierarchy, group, dir)?, hierarchy.v2))
        })
    }

    /// What the group uses.
    pub(crate) fn stats(&self, group: &Group) -> Stats {
        stats::read(&|controller| self.controller(group, controller))
    }

    /// What the group uses, in all that the host counts.
    pub(crate) fn report(&self, group: &Group) -> serde_json::Value {
        report::report(&|controller| self.controller(group, controller))
    }
}

/// A group's directory in a hierarchy, opened the first time that it is asked for, if we may write there: the rest is
/// somebody else's.
fn opened<'a>(hierarchy: &Hierarchy, group: &Group, dir: &'a OnceCell<Option<OwnedFd>>) -> Option<BorrowedFd<'a>> {
    let usable = |_: &OwnedFd| group.made || hierarchy.is_writable(&group.path);
    dir.get_or_init(|| hierarchy.open(&group.path).ok().filter(usable)).as_ref().map(AsFd::as_fd)
}

/// A relative path of plain names.
pub(crate) fn clean(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(Error::Invalid(format!("cgroup path {} is not plain", path.display()))),
        }
    }
    if clean.as_os_str().is_empty() {
        return Err(Error::Invalid("cgroup path is empty".to_owned()));
    }
    Ok(clean)
}

/// Puts resources into the kernel's words on a host without any controller, so that none is written.
#[cfg(test)]
pub(crate) fn translate(resources: &LinuxResources) -> Result<()> {
    device_program::compile(resources.devices().as_deref().unwrap_or_default())?;
    let mut others = resources.clone();
    others.set_devices(None);
    limits::apply(&others, &|_| None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_made_while_its_parents_are_removed() {
        let host = Host::discover().unwrap();
        if host.hierarchies.is_empty() {
            return;
        }
        let parent = format!("trimtab-unit-{}", std::process::id());
        let churn = |name: &str| {
            for _ in 0..200 {
                let group = host.create(&Path::new(&parent).join(name), None).unwrap();
                host.remove(&group).unwrap();
                host.remove_empty_parents(&group);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| churn("a"));
            churn("b");
        });
    }

    #[test]
    fn cgroup_paths_are_plain() {
        assert_eq!(clean(Path::new("/a/./b")).ok(), Some(PathBuf::from("a/b")));
        assert!(clean(Path::new("a/../..")).is_err());
        assert!(clean(Path::new("/")).is_err());
    }
}
