//! A container of the OCI command line: a directory below `--root` with its state, its spec and its gate.

use std::cell::{Cell, OnceCell};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::attached::Attached;
use super::notify;
use crate::cgroup::{Group, Host, Unit};
use crate::protocol::check_id;
use crate::state::{SPECIFICATION, State};
use crate::{Error, Result, failed, files};

/// The specification as it was when the container was made.
const SPEC: &str = "config.json";

/// What is there of a container before its state.
const UNFINISHED: &str = "creating.json";

/// The fifo that the first process waits at. Callers look for runc's name.
const GATE: &str = "exec.fifo";

/// What is written to the gate to open it.
const GO: u8 = 0;

/// An error longer than this is cut.
const MAX_LEFT_BYTES: usize = 4096;

/// The version of the state file.
const VERSION: u32 = 1;

/// What is known of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Container {
    version: u32,
    pub(super) id: String,
    /// The first process; of one that has none yet, the process that makes it.
    pub(super) pid: i32,
    start_time: u64,
    /// It stays in the cgroups of whoever made it.
    #[serde(default)]
    without_cgroup: bool,
    /// Its first process is not ready yet.
    #[serde(default)]
    creating: bool,
    pub(super) bundle: PathBuf,
    pub(super) cgroup: PathBuf,
    /// What systemd knows its cgroup as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
    pub(super) created: String,
    pub(super) annotations: std::collections::BTreeMap<String, String>,
    /// Its root, where that is mounted in a namespace that is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) attached: Option<Attached>,
    #[serde(skip)]
    dir: PathBuf,
    /// The cgroup was nobody's before.
    #[serde(skip)]
    pub(super) owns_cgroup: bool,
    /// Hooks have begun to run.
    #[serde(skip)]
    pub(super) hooked: Cell<bool>,
    #[serde(skip)]
    host: OnceCell<Rc<Host>>,
}

/// Where a new container's cgroup is.
#[derive(Debug)]
pub(super) enum Place {
    /// Below the root of every hierarchy.
    Path(PathBuf),
    /// Where systemd makes it.
    Unit(Unit),
    /// It stays in the cgroups of whoever makes it.
    None,
}

/// The states of runtime.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl Container {
    /// Reserves an id: makes its directory and records a container that is being created. Its specification gets what we
    /// add to it.
    pub(super) fn reserve(root: &Path, id: &str, bundle: &Path, spec: &mut Spec, place: Place) -> Result<Self> {
        check_id(id)?;
        files::make_dir(root)?;
        let dir = root.join(id);
        fs::DirBuilder::new().create(&dir).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Error::State(format!("container with id {id} exists already")),
            _ => Error::System(format!("make {}", dir.display()), e),
        })?;
        let creator = rustix::process::getpid().as_raw_nonzero().get();
        let (cgroup, unit, without_cgroup) = match place {
            Place::Path(path) => (path, None, false),
            Place::Unit(unit) => (unit.path(), Some(unit), false),
            Place::None => (id.into(), None, true),
        };
        let container = Self {
            version: VERSION,
            id: id.to_owned(),
            pid: creator,
            start_time: files::start_time(creator).unwrap_or_default(),
            creating: true,
            bundle: bundle.to_owned(),
            cgroup,
            unit,
            without_cgroup,
            created: crate::shim::log::rfc3339(files::now()),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            attached: None,
            dir,
            owns_cgroup: false,
            hooked: Cell::new(false),
            host: OnceCell::new(),
        };
        // Whoever asks for a state finds one when there is something to tell.
        files::write(&container.dir.join(UNFINISHED), &container)?;
        notify::prepare(&container.dir, spec)?;
        Ok(container)
    }

    /// Records a root that is about to be mounted where others live: whatever happens from here on, it has to go again.
    pub(super) fn attach(&mut self, attached: Attached) -> Result<()> {
        self.attached = Some(attached);
        files::write(&self.dir.join(UNFINISHED), self)
    }

    /// Keeps its specification, for commands to come.
    pub(super) fn keep(&self, spec: &Spec) -> Result<()> {
        files::write(&self.dir.join(SPEC), spec)
    }

    pub(super) fn load(root: &Path, id: &str) -> Result<Self> {
        Self::load_from(root, id, "state.json")
    }

    /// A container that somebody has begun to make.
    pub(super) fn load_unfinished(root: &Path, id: &str) -> Result<Self> {
        Self::load_from(root, id, UNFINISHED)
    }

    fn load_from(root: &Path, id: &str, file: &str) -> Result<Self> {
        check_id(id)?;
        let dir = root.join(id);
        let container: Self = match files::read(&dir.join(file)) {
            Err(Error::NotFound(_)) => return Err(Error::NotFound(format!("container {id}"))),
            other => other?,
        };
        if container.version > VERSION {
            return Err(Error::State(format!("{id}: state version {} is newer than {VERSION}", container.version)));
        }
        Ok(Self { dir, ..container })
    }

    /// All containers below a root.
    pub(super) fn list(root: &Path) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| Error::System(format!("read {}", root.display()), e))?,
        };
        let mut ids: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        ids.sort();
        Ok(ids.iter().filter_map(|id| Self::load(root, id).ok()).collect())
    }

    /// Records the first process while it is being made.
    pub(super) fn creating(&self, pid: i32) -> Result<()> {
        Self { pid, start_time: files::start_time(pid).unwrap_or_default(), ..self.clone() }.save()
    }

    /// Records the first process.
    pub(super) fn started(&mut self, pid: i32) -> Result<()> {
        self.pid = pid;
        self.start_time = files::start_time(pid).unwrap_or_default();
        self.creating = false;
        self.save()
    }

    /// The first process, once it is ready.
    pub(super) fn ready(&self) -> Option<OwnedFd> {
        self.process().filter(|_| !self.creating)
    }

    /// Whether the process that makes an unfinished container lives.
    pub(super) fn has_creator(&self) -> bool {
        self.process().is_some()
    }

    fn save(&self) -> Result<()> {
        files::write(&self.dir.join("state.json"), self)
    }

    pub(super) fn spec(&self) -> Result<Spec> {
        files::read(&self.dir.join(SPEC))
    }

    /// The first process, if it lives.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let ours = files::start_time(self.pid) == Some(self.start_time) && !is_zombie(self.pid);
        ours.then_some(pidfd)
    }

    /// The cgroups that it may have a place in.
    pub(super) fn host(&self) -> Result<Rc<Host>> {
        if let Some(host) = self.host.get() {
            return Ok(Rc::clone(host));
        }
        let host = Rc::new(self.discover()?);
        Ok(Rc::clone(self.host.get_or_init(|| host)))
    }

    /// The same as seen from the mounts that this process has now.
    pub(super) fn discover(&self) -> Result<Host> {
        if self.without_cgroup { Ok(Host::without()) } else { Host::discover() }
    }

    /// Its processes: those of its cgroup; where it has none, those of a pid namespace that it has for itself; else the
    /// first alone.
    pub(super) fn processes(&self) -> Result<Vec<i32>> {
        let host = self.host()?;
        let group = host.open(&self.cgroup)?;
        if !host.is_nowhere(&group) {
            return host.processes(&group);
        }
        if self.process().is_none() {
            return Ok(Vec::new());
        }
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let alone = self.spec().is_ok_and(|spec| super::has_own(&spec, LinuxNamespaceType::Pid));
        let Some(own) = namespace(self.pid).filter(|_| alone) else { return Ok(vec![self.pid]) };
        let entries = fs::read_dir("/proc").map_err(|e| Error::System("read /proc".to_owned(), e))?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter(|pid| namespace(*pid).as_ref() == Some(&own)).collect())
    }

    /// Gives its cgroup limits.
    pub(super) fn limit(&self, group: &Group, resources: &LinuxResources) -> Result<()> {
        let host = self.host()?;
        match &self.unit {
            Some(unit) => host.apply_to_unit(unit, group, resources),
            None => host.apply(group, resources),
        }
    }

    /// Kills what is in its cgroup, waits for the end of its first process, and removes that cgroup. Parents are their
    /// makers', who may want them for the next one, as with runc and crun.
    pub(super) fn remove_cgroup(&self, first: Option<&OwnedFd>) -> Result<()> {
        let host = self.host()?;
        let group = host.open(&self.cgroup)?;
        if first.is_none() && self.unit.is_none() && host.remove_empty(&group) {
            return Ok(());
        }
        host.kill(&group)?;
        // Without a cgroup nothing else tells of its end.
        first.into_iter().for_each(crate::destroy::wait_for_end);
        if let Some(unit) = &self.unit {
            unit.stop()?;
        }
        host.remove(&group)
    }

    pub(super) fn status(&self) -> Status {
        if self.process().is_none() {
            return Status::Stopped;
        }
        if self.creating {
            return Status::Creating;
        }
        let frozen = self.host().and_then(|host| Ok(host.is_frozen(&host.open(&self.cgroup)?))).unwrap_or(false);
        match (frozen, self.gate_path().exists()) {
            (true, _) => Status::Paused,
            (_, true) => Status::Created,
            _ => Status::Running,
        }
    }

    /// The user that has made it.
    pub(super) fn owner(&self) -> Option<u32> {
        fs::metadata(&self.dir).ok().map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata))
    }

    /// Where its files lie.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn gate_path(&self) -> PathBuf {
        self.dir.join(GATE)
    }

    /// A fifo the first process waits at. Opened for both ways, so that neither side ever waits for the other to open.
    pub(super) fn make_gate(&self) -> Result<OwnedFd> {
        let what = || "make the start gate".to_owned();
        let path = self.gate_path();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(failed(what))?;
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed(what))
    }

    /// Lets the first process go, and comes back when it has become its program: behind the startContainer hooks
    /// (runtime.md, Lifecycle 7 and 8), with their error.
    pub(super) fn open_gate(&self) -> Result<()> {
        let what = || "start".to_owned();
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Without a reader the process is gone.
        let gate = rustix::fs::open(self.gate_path(), flags, Mode::empty()).map_err(failed(what))?;
        fs::remove_file(self.gate_path()).map_err(|e| Error::System(what(), e))?;
        rustix::io::write(&gate, &[GO]).map_err(failed(what))?;
        // Its end is close-on-exec, and the only one beside ours.
        loop {
            match poll(&mut [PollFd::new(&gate, PollFlags::empty())], None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed(what)(e)),
            }
        }
        match Self::left_at(&gate).map_err(|e| Error::System(what(), e))? {
            left if left.is_empty() => Ok(()),
            left if left == [GO] => Err(Error::State(format!("container {} has ended", self.id))),
            left => Err(Error::State(String::from_utf8_lossy(&left).into_owned())),
        }
    }

    /// What nobody has read from a fifo that only we hold.
    fn left_at(gate: &OwnedFd) -> std::io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let again = rustix::fs::open(format!("/proc/self/fd/{}", gate.as_raw_fd()), flags, Mode::empty())?;
        let mut left = vec![0; MAX_LEFT_BYTES];
        let length = match rustix::io::read(&again, &mut left) {
            Err(Errno::AGAIN) => 0,
            other => other?,
        };
        left.truncate(length);
        Ok(left)
    }

    /// The state as runtime.md, State, has it.
    pub(super) fn oci_state(&self) -> State {
        self.state_as(self.status(), self.spec().ok().as_ref())
    }

    /// The same of a container that is known to be in this state.
    pub(super) fn state_as(&self, status: Status, spec: Option<&Spec>) -> State {
        State {
            oci_version: SPECIFICATION,
            id: self.id.clone(),
            pid: if status == Status::Stopped { 0 } else { self.pid },
            status: status.name(),
            bundle: self.bundle.clone(),
            rootfs: spec.and_then(|spec| spec.root().as_ref().map(|root| self.bundle.join(root.path()))),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
        }
    }

    pub(super) fn forget(&self) -> Result<()> {
        fs::remove_dir_all(&self.dir).map_err(|e| Error::System(format!("remove {}", self.dir.display()), e))
    }
}

/// Whether a process has ended, or is not there.
pub(super) fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}
