//! Doing what the plan says: each step on a task of its own, which tells the worker what came of it.

mod container;
pub(crate) mod files;
mod grpc;
mod hook;
mod image;
mod probe;
mod propagation;
mod resize;
mod sandbox;
mod seccomp;
mod stop;
mod subpath;
mod volume;

use std::collections::HashMap;
use std::sync::Arc;

use api::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use node_plan::{Fact, Observed, Step};
use parking_lot::Mutex;
use runtime_core::pod::Shim;
use tokio::sync::mpsc;

pub(crate) use files::remove_tree;

use crate::agent::Agent;
use crate::paths::PodPaths;
use crate::sources::Hold;
use crate::worker::Told;

/// Service account tokens by volume and path, with the time to ask for a new one.
pub(crate) type Tokens = HashMap<(String, String), (String, Timestamp)>;

/// What the steps of one pod share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Performer {
    pub(crate) agent: Arc<Agent>,
    pub(crate) paths: Arc<PodPaths>,
    pub(crate) hold: Arc<Hold>,
    pub(crate) facts: mpsc::Sender<Told>,
    pub(crate) shim: Arc<Mutex<Option<Arc<Shim>>>>,
    /// Service account tokens by volume and path, with the time to ask for a new one.
    pub(crate) tokens: Arc<Mutex<Tokens>>,
}

impl Performer {
    pub(crate) fn new(agent: Arc<Agent>, paths: PodPaths, hold: Arc<Hold>, facts: mpsc::Sender<Told>) -> Self {
        let (shim, tokens) = (Arc::default(), Arc::default());
        Self { agent, paths: Arc::new(paths), hold, facts, shim, tokens }
    }

    /// The pod's shim; the error is for a failed step.
    pub(crate) fn shim(&self) -> Result<Arc<Shim>, String> {
        self.shim.lock().clone().ok_or_else(|| "the pod's sandbox is not there".into())
    }

    pub(crate) async fn tell(&self, fact: Fact) {
        let _ = self.facts.send(Told::Fact(fact)).await;
    }
}

/// Performs one step and tells what came of it.
pub(crate) async fn perform(performer: Performer, pod: Pod, seen: Observed, step: Step) {
    let on_step = performer.agent.config.on_step.unwrap_or(|_, _, _| {});
    on_step(&pod, &step, false);
    let fact = done(&performer, &pod, &seen, step.clone()).await;
    on_step(&pod, &step, true);
    if let Some(fact) = fact {
        performer.tell(fact).await;
    }
}

/// Does a step; answers what there is to be told of it.
async fn done(p: &Performer, pod: &Pod, seen: &Observed, step: Step) -> Option<Fact> {
    Some(match step {
        Step::AttachNetwork => Fact::Network(sandbox::attach(p, pod).await),
        Step::MountVolumes => Fact::Volumes(volume::mount_all(p, pod, seen).await),
        Step::StartSandbox => Fact::Sandbox(sandbox::start(p, pod, seen).await),
        Step::PullImage { container, attempt, image, policy } => {
            let result = image::pull(p, pod, &container, &image, policy).await;
            Fact::Image { container, attempt, result }
        }
        Step::StartContainer { container, attempt, .. } => {
            let result = container::start(p, pod, seen, &container, attempt).await;
            Fact::Started { container, attempt, result }
        }
        Step::Resize { container, run, resources } => {
            let result = resize::run(p, pod, &container, &run, &resources).await;
            Fact::Resized { container, run, resources, result }
        }
        Step::RunHook { container, run, which, deadline } => {
            let result = hook::run(p, pod, seen, &container, &run, which, deadline).await;
            Fact::Hook { container, run, which, result }
        }
        Step::RunProbe { container, run, which } => {
            let (ok, output) = probe::run(p, pod, seen, &container, &run, which).await;
            Fact::Probe { container, run, which, ok, output }
        }
        Step::Signal { run, signal, kill, .. } => {
            stop::signal(p, run, signal, kill).await;
            return None;
        }
        Step::RemoveRun { container, run } => {
            stop::remove(p, &run).await;
            Fact::Removed { container, run }
        }
        Step::Teardown => Fact::TornDown(stop::tear_down(p, pod).await),
        Step::Forget => Fact::Forgotten(stop::forget(p, pod, seen).await),
        Step::Conclude(_) | Step::StopPod { .. } | Step::StopRun { .. } | Step::TellBackoff { .. } => return None,
    })
}
