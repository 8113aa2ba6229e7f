//! Control groups by directory descriptor: v1, v2, and hybrid hosts with both. A cgroup here is one path below the root
//! of every hierarchy.

mod device_program;
mod limits;
mod report;
mod stats;
mod systemd;

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, Uid, chownat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::{Error, Result, failed};

pub(crate) use stats::Stats;
pub(crate) use systemd::{Placeholder, Unit};

/// The mode of a new cgroup's directory.
const DIRECTORY: Mode = Mode::from_raw_mode(0o755);
/// How long to wait for killed processes to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to begin anew to make a cgroup whose parents are removed meanwhile.
const MAKE_TRIES: usize = 100;
/// How often to look at a v1 cgroup.
const INTERVAL: Duration = Duration::from_millis(2);

/// One mounted hierarchy.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    /// `cpu,cpuacct`, `systemd`, or empty for v2: the name of its directory in a container.
    pub(crate) name: String,
    controllers: Vec<String>,
    v2: bool,
    root: OwnedFd,
}

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

    /// What the group uses.
    pub(crate) fn stats(&self, group: &Group) -> Stats {
        stats::read(&|controller| self.controller(group, controller))
    }

    /// What the group uses, in all that the host counts.
    pub(crate) fn report(&self, group: &Group) -> serde_json::Value {
        report::report(&|controller| self.controller(group, controller))
    }

    /// Watches for the group's want of memory. `None` where the host does not count it.
    pub(crate) fn watch_memory(&self, group: &Group) -> Result<Option<MemoryWatch>> {
        let Some((dir, v2)) = self.controller(group, "memory") else { return Ok(None) };
        let watch = if v2 { MemoryWatch::v2(dir) } else { MemoryWatch::v1(dir) };
        watch.map(Some).map_err(|e| Error::System("watch for the want of memory".to_owned(), e))
    }

    /// Where a group's processes are looked for: wherever it is, if not where it should be.
    fn kill_directory<'a>(&'a self, group: &'a Group) -> Option<BorrowedFd<'a>> {
        let by = |name: &str| self.controller(group, name).map(|(dir, _)| dir);
        by("pids").or_else(|| by("freezer")).or_else(|| self.dirs(group).next().map(|(_, dir)| dir))
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

impl Hierarchy {
    fn open(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat(&self.root, path, flags, Mode::empty()).map_err(failed(|| format!("open cgroup {}", path.display())))
    }

    fn is_writable(&self, path: &Path) -> bool {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::accessat(&self.root, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    fn is_for(&self, controller: &str) -> bool {
        self.name == controller || self.controllers.iter().any(|c| c == controller)
    }

    /// Makes a cgroup with its parents; its directory where that had to be opened.
    fn make(&self, path: &Path) -> Result<Option<OwnedFd>> {
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

/// A group's directory in a hierarchy, opened the first time that it is asked for, if we may write there: the rest is
/// somebody else's.
fn opened<'a>(hierarchy: &Hierarchy, group: &Group, dir: &'a OnceCell<Option<OwnedFd>>) -> Option<BorrowedFd<'a>> {
    let usable = |_: &OwnedFd| group.made || hierarchy.is_writable(&group.path);
    dir.get_or_init(|| hierarchy.open(&group.path).ok().filter(usable)).as_ref().map(AsFd::as_fd)
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

/// Lets the children of a v2 cgroup use its controllers, one by one: one that refuses does not stop the others.
fn enable(dir: BorrowedFd<'_>, controllers: &[String]) {
    let enabled = words(dir, "cgroup.subtree_control");
    for controller in controllers.iter().filter(|c| !enabled.contains(c)) {
        let _ = write(dir, "cgroup.subtree_control", &format!("+{controller}"));
    }
}

struct Mounted {
    root: String,
    place: PathBuf,
    name: String,
    controllers: Vec<String>,
    v2: bool,
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
fn parse_mount(line: &str) -> Option<Mounted> {
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

/// Puts resources into the kernel's words on a host without any controller, so that none is written.
#[cfg(test)]
pub(crate) fn translate(resources: &LinuxResources) -> Result<()> {
    device_program::compile(resources.devices().as_deref().unwrap_or_default())?;
    let mut others = resources.clone();
    others.set_devices(None);
    limits::apply(&others, &|_| None)
}

/// Sends a signal; a process that is gone is no error.
pub(crate) fn signal(pid: i32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(pid);
    let open = |pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
    if let Some(pidfd) = pid.and_then(open) {
        let _ = crate::sys::signal(&pidfd, signal);
    }
}

fn words(dir: BorrowedFd<'_>, file: &str) -> Vec<String> {
    read(dir, file).map(|text| text.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

/// The text of a control file. (Nobody knows its length before, and most are short.)
pub(crate) fn read(dir: BorrowedFd<'_>, file: impl AsRef<Path>) -> io::Result<String> {
    let file = openat(dir, file.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut part))? {
            0 => break,
            n => text.extend_from_slice(part.get(..n).unwrap_or_default()),
        }
    }
    String::from_utf8(text).map_err(io::Error::other)
}

/// Writes a control file in one write.
pub(crate) fn write(dir: BorrowedFd<'_>, file: impl AsRef<Path>, text: &str) -> io::Result<()> {
    let file = openat(dir, file.as_ref(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, text.as_bytes())?;
    Ok(())
}

/// The cgroup of this process in the hierarchy of a v1 controller or v2, for paths that start there.
pub(crate) fn own_path() -> PathBuf {
    let own = own_path_of(|line| line.contains(":pids:")).or_else(|| own_path_of(|line| line.starts_with("0::")));
    own.unwrap_or_default()
}

/// The path in a line of cgroup(7)'s /proc/self/cgroup.
fn own_path_of(wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find(|line| wanted(line))?.splitn(3, ':').nth(2).map(PathBuf::from)
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
