//! What the plan may ask for, what comes back, and how both change the memory of the pod.

use std::net::IpAddr;

use api::Timestamp;
use api::k8s_openapi::api::core::v1::ResourceRequirements;

use crate::observed::{ImageFacts, Verdict};

/// What to do next for a pod. Every step changes [`crate::Observed`] when it begins (see [`crate::begin`]), so that
/// none is asked for twice.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Step {
    /// Remember that the pod has failed as a whole.
    Conclude(Verdict),
    /// Give the pod an address and a network namespace; with the host's network, nothing but the node's addresses.
    AttachNetwork,
    /// Write the pod's volumes, or write them again.
    MountVolumes,
    /// Start the pod's shim.
    StartSandbox,
    /// Find the container's image, or pull it.
    PullImage { container: String, attempt: u32, image: String, policy: PullPolicy },
    /// Create and start a container with these resources.
    StartContainer { container: String, attempt: u32, resources: Box<ResourceRequirements> },
    /// Give a run other resources, if the node has them.
    Resize { container: String, run: String, resources: Box<ResourceRequirements> },
    /// Run a lifecycle hook, no longer than until `deadline`.
    RunHook { container: String, run: String, which: Lifecycle, deadline: Option<Timestamp> },
    /// Run a probe once.
    RunProbe { container: String, run: String, which: ProbeKind },
    /// Begin to end the pod.
    StopPod { grace_seconds: i64, deadline: Timestamp },
    /// Begin to end a run; `message` is the Killing event's.
    StopRun { container: String, run: String, message: String, deadline: Timestamp },
    /// Send a signal to a run.
    Signal { container: String, run: String, signal: i32, kill: bool },
    /// Forget an ended run: its mounts, cgroup and writable layer.
    RemoveRun { container: String, run: String },
    /// Tell about a wait once.
    TellBackoff { container: String, note: Note },
    /// Remove everything but logs and memory.
    Teardown,
    /// Report the last status, delete the API object if it is to be deleted, remove logs and memory.
    Forget,
}

/// When to ask the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The two lifecycle hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Lifecycle {
    PostStart,
    PreStop,
}

/// The three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

/// An event about the pod, in upstream's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// `Warning` instead of `Normal`.
    pub warning: bool,
    /// CamelCase.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// The container it is about.
    pub container: Option<String>,
}

impl Note {
    /// A normal event about a container.
    pub fn normal(container: &str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into(), container: Some(container.into()) }
    }

    /// A warning about a container.
    pub fn warning(container: &str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(container, reason, message) }
    }

    /// A warning about the pod as a whole.
    pub fn of_pod(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into(), container: None }
    }
}

/// What has happened, on its own or in answer to a step.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Fact {
    /// The API object is gone.
    Gone,
    /// The node needs what the pod has.
    Evicted(Verdict),
    Network(Result<Vec<IpAddr>, String>),
    /// Written; `refresh_at` is when to write them again.
    Volumes(Result<Option<Timestamp>, String>),
    /// A source of a volume changed.
    VolumesStale,
    Sandbox(Result<(), String>),
    /// The shim is no longer there.
    SandboxLost,
    /// A registry is about to be asked for the container's image.
    Pulling {
        container: String,
    },
    Image {
        container: String,
        attempt: u32,
        result: Result<Pulled, PullFailure>,
    },
    Started {
        container: String,
        attempt: u32,
        result: Result<Process, StartFailure>,
    },
    Hook {
        container: String,
        run: String,
        which: Lifecycle,
        result: Result<(), String>,
    },
    Probe {
        container: String,
        run: String,
        which: ProbeKind,
        ok: bool,
        output: String,
    },
    Resized {
        container: String,
        run: String,
        resources: Box<ResourceRequirements>,
        result: Result<(), ResizeFailure>,
    },
    /// A container of the shim, running or ended; `message` is its termination message.
    Process {
        run: String,
        process: Process,
        exit: Option<Ended>,
        message: String,
    },
    Removed {
        container: String,
        run: String,
    },
    TornDown(Result<(), String>),
    Forgotten(Result<(), String>),
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Pulled {
    pub image: ImageFacts,
    /// Milliseconds and bytes, where it had to be fetched.
    pub fetched: Option<(u64, u64)>,
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum PullFailure {
    /// Not here, and the policy is never to pull.
    Never,
    InvalidName(String),
    Failed(String),
}

/// A process that is there.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Process {
    pub pid: i32,
    pub started_at: Timestamp,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum StartFailure {
    /// The pod's specification cannot be met now (a missing ConfigMap, a forbidden user): tried again.
    Config(String),
    /// The container could not be made: tried again.
    Create(String),
    /// It was made but its process could not be started: counts as a run that ended with 128.
    Run(String),
}

/// Why a run was not given other resources.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct ResizeFailure {
    /// `Deferred`, `Infeasible` or `Error`.
    pub reason: &'static str,
    pub message: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Ended {
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub finished_at: Timestamp,
}
