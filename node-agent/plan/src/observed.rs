//! What the node has seen of one pod: the only memory a pod's worker has. It is written to disk, so that a new agent
//! goes on where the old one stopped.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::Timestamp;
use api::k8s_openapi::api::core::v1::ResourceRequirements;
use serde::{Deserialize, Serialize};

/// Version of the form on disk.
pub const VERSION: u32 = 1;

/// Something that is made once, may take long and may fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Stage<T> {
    /// Not begun.
    #[default]
    Absent,
    /// Under way in the agent, after so many failures in a row.
    Doing(u32),
    /// There.
    Done(T),
    /// Failed; tried again after a while.
    Failed(Failure),
}

impl<T> Stage<T> {
    /// The thing, where it is there.
    pub fn done(&self) -> Option<&T> {
        match self {
            Self::Done(value) => Some(value),
            _ => None,
        }
    }

    /// How often it has failed in a row.
    pub fn failures(&self) -> u32 {
        match self {
            Self::Failed(failure) => failure.count,
            Self::Doing(failures) => *failures,
            Self::Absent | Self::Done(_) => 0,
        }
    }
}

/// Why something failed, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// A CamelCase word: `CreateContainerConfigError`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// In a row.
    pub count: u32,
}

/// Everything seen of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The form's version.
    pub version: u32,
    /// When the node first saw the pod: `status.startTime`.
    pub started_at: Option<Timestamp>,
    /// Why the pod has ended although its containers have not (deadline, eviction, rejected).
    pub verdict: Option<Verdict>,
    /// The pod no longer exists at the API server.
    pub gone: bool,
    /// The pod's addresses, once it has a network.
    pub network: Stage<Vec<IpAddr>>,
    /// The pod's volumes.
    pub volumes: Stage<Volumes>,
    /// The pod's shim: its namespaces and cgroup.
    pub sandbox: Stage<()>,
    /// Counts sandboxes: containers of an earlier one do not initialise this one.
    pub sandbox_attempt: u32,
    /// By container name.
    pub containers: BTreeMap<String, Seen>,
    /// The pod is being ended.
    pub stop: Option<PodStop>,
    /// Nothing is left of the pod but its logs and this memory.
    pub teardown: Stage<()>,
    /// The API object was deleted by us; nothing is left to do.
    pub forgotten: Stage<()>,
}

/// The pod's volumes as they were last written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Volumes {
    /// When to write them again: a token nears its end, or a source changed.
    pub refresh_at: Option<Timestamp>,
    /// A refresh is under way.
    pub refreshing: bool,
}

/// Why a pod failed as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
    /// Rejected before anything was started.
    pub rejected: bool,
}

/// A pod being ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodStop {
    /// Seconds that were granted.
    pub grace_seconds: i64,
    /// When everything still running is killed.
    pub deadline: Timestamp,
}

/// What was seen of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The image for the attempt that is due.
    pub image: ImageStage,
    /// A start is under way.
    pub starting: bool,
    /// Why the last start failed before there was a process.
    pub failure: Option<Failure>,
    /// The latest run.
    pub current: Option<Run>,
    /// How the run before it ended.
    pub last: Option<Run>,
    /// Crash loop back-off.
    pub backoff: Option<Backoff>,
    /// What the latest run was given.
    #[serde(default)]
    pub resources: Option<ResourceRequirements>,
    /// Giving it something else while it runs.
    #[serde(default)]
    pub resize: Resize,
}

/// A change of a run's resources (KEP-1287).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Resize {
    #[default]
    Settled,
    Doing,
    /// `Deferred`, `Infeasible` or `Error`; tried again after a while, or when something else is wanted.
    Refused {
        wanted: ResourceRequirements,
        failure: Failure,
    },
}

impl Seen {
    /// How the latest run ended, and the back-off before the next: none where that has begun once already.
    pub fn backing_off(&self) -> Option<(&Exit, &Backoff)> {
        let run = self.current.as_ref()?;
        let backoff = self.backoff.as_ref().filter(|backoff| backoff.attempt == run.attempt)?;
        Some((run.exit.as_ref()?, backoff))
    }
}

/// Back-off of a container that keeps ending, doubled with every restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// The attempt at whose start it was last doubled: it is for the end of that run.
    #[serde(default)]
    pub attempt: u32,
    /// Seconds to wait after the end of a run.
    pub delay_s: i64,
    /// When it was last doubled.
    pub updated: Timestamp,
    /// An event told about the wait after this run.
    pub told: bool,
}

/// The image of a container, looked up or pulled once an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ImageStage {
    #[default]
    Absent,
    /// Under way; holds the wait after the try before.
    Pulling(Option<i64>),
    Ready {
        attempt: u32,
        image: ImageFacts,
    },
    Failed {
        failure: Failure,
        /// Seconds until the next try.
        delay_s: i64,
        /// An event told about the back-off.
        told: bool,
    },
}

/// What a status and a stop need to know of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// `status.image`: the normalised name.
    pub name: String,
    /// `status.imageID`: `name@sha256:...`, or the id where there is no digest.
    pub reference: String,
    /// The configuration's digest, to find it in the store.
    pub id: String,
    /// The image's own stop signal.
    pub stop_signal: Option<String>,
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The shim's name for it: `<name>-<attempt>`.
    pub id: String,
    /// Counts runs of the container from 0: the restart count.
    pub attempt: u32,
    /// In which sandbox.
    pub sandbox: u32,
    /// What it runs.
    pub image: ImageFacts,
    /// The init's pid in the host's pid namespace.
    pub pid: i32,
    /// When it began.
    pub started_at: Timestamp,
    /// How it ended.
    pub exit: Option<Exit>,
    /// The postStart hook.
    pub post_start: Hook,
    /// It is being stopped.
    pub stop: Option<Stop>,
    /// The probes' results.
    pub probes: Probes,
    /// It is being removed from the shim.
    #[serde(skip)]
    pub removing: bool,
    /// The shim has forgotten it.
    pub removed: bool,
}

impl Run {
    /// Has a process.
    pub fn running(&self) -> bool {
        self.exit.is_none()
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// The status, or 128 + signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// The termination message.
    pub message: String,
    /// When.
    pub finished_at: Timestamp,
}

/// A lifecycle hook of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Hook {
    #[default]
    Pending,
    Doing,
    Done,
    Failed,
}

/// A run being stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// Why, as the Killing event says it.
    pub message: String,
    /// When it is killed.
    pub deadline: Timestamp,
    /// The preStop hook.
    pub pre_stop: Hook,
    /// When the stop signal was sent.
    pub signalled: Option<Timestamp>,
    /// When SIGKILL was sent.
    pub killed: Option<Timestamp>,
}

/// The three probes of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Probes {
    pub startup: ProbeState,
    pub liveness: ProbeState,
    pub readiness: ProbeState,
}

/// One probe: its verdict so far and what leads to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeState {
    /// When it was last begun.
    pub begun: Option<Timestamp>,
    /// Under way.
    pub in_flight: bool,
    /// The latest outcome and how often in a row.
    pub streak: Option<(bool, i32)>,
    /// The verdict, once a threshold was reached.
    pub verdict: Option<bool>,
}
