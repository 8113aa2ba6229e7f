//! A container of the OCI command line: a directory below `--root` with its state, its spec and its gate.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::cgroup::Host;
use crate::protocol::check_id;
use crate::{Error, Result, failed, files};

/// The version of the state file.
const VERSION: u32 = 1;

/// What is known of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Container {
    version: u32,
    pub(super) id: String,
    /// 0 while it is being created.
    pub(super) pid: i32,
    start_time: u64,
    pub(super) bundle: PathBuf,
    pub(super) cgroup: PathBuf,
    pub(super) created: String,
    pub(super) annotations: std::collections::BTreeMap<String, String>,
    #[serde(skip)]
    dir: PathBuf,
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
    /// Reserves an id: makes its directory and records a container that is being created.
    pub(super) fn reserve(root: &Path, id: &str, bundle: &Path, spec: &Spec, cgroup: &Path) -> Result<Self> {
        check_id(id)?;
        files::make_dir(root)?;
        let dir = root.join(id);
        fs::DirBuilder::new().create(&dir).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Error::State(format!("container with id {id} exists already")),
            _ => Error::System(format!("make {}", dir.display()), e),
        })?;
        let container = Self {
            version: VERSION,
            id: id.to_owned(),
            pid: 0,
            start_time: 0,
            bundle: bundle.to_owned(),
            cgroup: cgroup.to_owned(),
            created: crate::shim::log::rfc3339(files::now()),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            dir,
        };
        container.save()?;
        files::write(&container.dir.join("config.json"), spec)?;
        Ok(container)
    }

    pub(super) fn load(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let dir = root.join(id);
        let container: Self = match files::read(&dir.join("state.json")) {
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

    /// Records the first process.
    pub(super) fn started(&mut self, pid: i32) -> Result<()> {
        self.pid = pid;
        self.start_time = files::start_time(pid).unwrap_or_default();
        self.save()
    }

    fn save(&self) -> Result<()> {
        files::write(&self.dir.join("state.json"), self)
    }

    pub(super) fn spec(&self) -> Result<Spec> {
        files::read(&self.dir.join("config.json"))
    }

    /// The first process, if it lives.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let ours = files::start_time(self.pid) == Some(self.start_time) && !is_zombie(self.pid);
        ours.then_some(pidfd)
    }

    pub(super) fn status(&self) -> Status {
        if self.pid == 0 {
            return Status::Creating;
        }
        if self.process().is_none() {
            return Status::Stopped;
        }
        let frozen = Host::discover().and_then(|host| Ok(host.is_frozen(&host.open(&self.cgroup)?))).unwrap_or(false);
        match (frozen, self.gate_path().exists()) {
            (true, _) => Status::Paused,
            (_, true) => Status::Created,
            _ => Status::Running,
        }
    }

    fn gate_path(&self) -> PathBuf {
        self.dir.join("gate")
    }

    /// A fifo the first process waits at. Opened for both ways, so that neither side ever waits for the other to open.
    pub(super) fn make_gate(&self) -> Result<OwnedFd> {
        let what = || "make the start gate".to_owned();
        let path = self.gate_path();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(failed(what))?;
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed(what))
    }

    /// Lets the first process go.
    pub(super) fn open_gate(&self) -> Result<()> {
        let what = || "start".to_owned();
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Without a reader the process is gone.
        let gate = rustix::fs::open(self.gate_path(), flags, Mode::empty()).map_err(failed(what))?;
        fs::remove_file(self.gate_path()).map_err(|e| Error::System(what(), e))?;
        rustix::io::write(gate, &[1]).map_err(failed(what))?;
        Ok(())
    }

    /// The state as runtime.md, State, has it.
    pub(super) fn oci_state(&self) -> serde_json::Value {
        let status = self.status();
        let mut state = serde_json::json!({
            "ociVersion": "1.3.0",
            "id": self.id,
            "status": status.name(),
            "pid": if status == Status::Stopped { 0 } else { self.pid },
            "bundle": self.bundle,
            "annotations": self.annotations,
            "created": self.created,
        });
        if let (Ok(spec), Some(object)) = (self.spec(), state.as_object_mut()) {
            let rootfs = spec.root().as_ref().map(|root| self.bundle.join(root.path()));
            object.insert("rootfs".to_owned(), serde_json::json!(rootfs));
        }
        state
    }

    pub(super) fn forget(&self) -> Result<()> {
        fs::remove_dir_all(&self.dir).map_err(|e| Error::System(format!("remove {}", self.dir.display()), e))
    }
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}
