//! One pod's worker: decides, performs, notes what came of it, reports. Never two for one pod.

use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use node_plan::observed::{Stage, Verdict};
use node_plan::status::PASSING;
use node_plan::{Fact, Observed, Step, begin, decide, learn, status};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::agent::Agent;
use crate::memory::{Memory, save};
use crate::paths::PodPaths;
use crate::perform::{self, Performer};
use crate::sources::Hold;

/// Facts that wait for the worker; a task that has one waits itself.
const INBOX: usize = 64;
/// Rounds of decisions without a pause: more would mean that two steps undo each other.
const MAX_ROUNDS: usize = 64;
/// Steps of one pod under way at the same time.
const MAX_TASKS: usize = 128;
/// How long a worker stands still when its plan does not come to rest or too much is under way.
const PAUSE: Duration = Duration::from_secs(1);
/// First and longest wait before a refused status is sent again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What the API server says of the pod.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) pod: Arc<Pod>,
    pub(crate) gone: bool,
    /// The node ends the pod for its own sake.
    pub(crate) evicted: Option<Verdict>,
}

/// Runs the worker of one pod until nothing is left to do for it, or the agent ends.
pub(crate) async fn run(agent: Arc<Agent>, mut view: watch::Receiver<View>, seen: Observed, adopted: bool) {
    let (facts, mut inbox) = mpsc::channel(INBOX);
    let first = view.borrow_and_update().clone();
    let mut worker = Worker::new(agent, &first, seen, facts);
    if adopted {
        worker.adopt().await;
    }
    if first.gone {
        worker.learn(Fact::Gone);
    }
    loop {
        let wake = worker.advance();
        if worker.seen.forgotten.done().is_some() {
            return;
        }
        worker.report();
        tokio::select! {
            fact = inbox.recv() => {
                if let Some(fact) = fact {
                    worker.take(fact);
                }
            }
            changed = view.changed() => match changed {
                Ok(()) => {
                    let view = view.borrow_and_update().clone();
                    worker.update(view);
                }
                Err(_) => return,
            },
            () = worker.stale.notified() => worker.learn(Fact::VolumesStale),
            () = sleep_until(wake) => {}
            Some(_) = worker.tasks.join_next() => {}
        }
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let wait = at.duration_since(Timestamp::now());
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}

/// What a task tells its worker.
pub(crate) enum Told {
    Fact(Fact),
    /// The API server has taken a status; its answer.
    Reported(Result<Box<Pod>, kube::Error>),
    /// Try again to send the status.
    ReportAgain,
}

struct Worker {
    agent: Arc<Agent>,
    pod: Pod,
    paths: PodPaths,
    seen: Observed,
    saved: Option<Observed>,
    facts: mpsc::Sender<Told>,
    performer: Performer,
    tasks: JoinSet<()>,
    stale: Arc<Notify>,
    _follow: JoinSet<()>,
    /// A status is on its way.
    reporting: bool,
    retry: Duration,
    /// Nothing is decided before.
    paused: Option<Timestamp>,
}

impl Worker {
    fn new(agent: Arc<Agent>, view: &View, seen: Observed, facts: mpsc::Sender<Told>) -> Self {
        let pod = Pod::clone(&view.pod);
        let paths = PodPaths::of(&agent.config, &pod);
        let hold: Arc<Hold> = Arc::new(agent.sources.hold(&pod));
        let stale = Arc::new(Notify::new());
        let follow = hold.follow(&stale);
        let performer = Performer::new(agent.clone(), paths.clone(), hold, facts.clone());
        Self {
            agent,
            pod,
            paths,
            seen,
            saved: None,
            facts,
            performer,
            tasks: JoinSet::new(),
            stale,
            _follow: follow,
            reporting: false,
            retry: RETRY_FIRST,
            paused: None,
        }
    }

    /// Finds what an earlier agent left: a running shim, or the traces of a dead one.
    async fn adopt(&mut self) {
        if self.seen.sandbox.done().is_none() {
            return;
        }
        for fact in self.performer.adopt(&self.pod).await {
            self.learn(fact);
        }
        self.performer.follow_shim(&self.pod, &mut self.tasks);
    }

    /// Decides and begins steps until none is left; says when to look again.
    fn advance(&mut self) -> Option<Timestamp> {
        if let Some(until) = self.paused.filter(|until| Timestamp::now() < *until) {
            return Some(until);
        }
        for _ in 0..MAX_ROUNDS {
            if self.tasks.len() >= MAX_TASKS {
                break;
            }
            let now = Timestamp::now();
            let outcome = decide(&self.pod, &self.seen, now);
            if outcome.effects.is_empty() {
                self.save();
                return outcome.wake_at;
            }
            for step in &outcome.effects {
                for note in begin(&mut self.seen, step, now) {
                    self.agent.recorder.pod(&self.pod, &note);
                }
            }
            self.save();
            for step in outcome.effects {
                self.perform(step);
            }
        }
        tracing::error!(
            pod = self.pod.metadata.name,
            under_way = self.tasks.len(),
            "a pod's plan does not come to rest"
        );
        self.paused = Some(Timestamp::now() + PAUSE);
        self.paused
    }

    fn perform(&mut self, step: Step) {
        // These only change the memory.
        if matches!(step, Step::Conclude(_) | Step::StopPod { .. } | Step::StopRun { .. } | Step::TellBackoff { .. }) {
            return;
        }
        let performer = self.performer.clone();
        let (pod, seen) = (self.pod.clone(), self.seen.clone());
        self.tasks.spawn(async move { perform::perform(performer, pod, seen, step).await });
    }

    /// Once the memory says that the pod is being forgotten it is about to be removed: what is still learnt must not bring
    /// it back.
    fn save(&mut self) {
        let ending = self.saved.as_ref().is_some_and(|saved| saved.forgotten != Stage::Absent);
        if ending || self.saved.as_ref() == Some(&self.seen) || self.seen.forgotten.done().is_some() {
            return;
        }
        let memory = Memory { pod: slim(&self.pod), seen: self.seen.clone() };
        match save(&self.paths.state(), &memory) {
            Ok(()) => self.saved = Some(memory.seen),
            Err(error) => tracing::warn!(%error, "a pod's memory cannot be written"),
        }
    }

    fn learn(&mut self, fact: Fact) {
        for note in learn(&self.pod, &mut self.seen, fact, Timestamp::now()) {
            self.agent.recorder.pod(&self.pod, &note);
        }
    }

    fn update(&mut self, view: View) {
        if view.gone {
            self.learn(Fact::Gone);
        }
        if let Some(verdict) = view.evicted {
            self.learn(Fact::Evicted(verdict));
        }
        if newer(&view.pod, &self.pod) {
            self.pod = Pod::clone(&view.pod);
        }
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Fact(fact) => {
                if matches!(fact, Fact::Sandbox(Ok(()))) {
                    self.performer.follow_shim(&self.pod, &mut self.tasks);
                }
                self.learn(fact);
            }
            Told::ReportAgain => self.reporting = false,
            Told::Reported(Ok(pod)) => {
                (self.reporting, self.retry) = (false, RETRY_FIRST);
                if newer(&pod, &self.pod) {
                    self.pod = *pod;
                }
            }
            Told::Reported(Err(error)) => self.refused(&error),
        }
    }

    /// A pod that is gone takes no status; all else is tried again.
    fn refused(&mut self, error: &kube::Error) {
        if let kube::Error::Api(status) = error
            && matches!(status.code, 404 | 409)
        {
            return;
        }
        tracing::debug!(%error, pod = self.pod.metadata.name, "a status was refused");
        let (facts, wait) = (self.facts.clone(), self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = facts.send(Told::ReportAgain).await;
        });
    }

    /// Sends the status if it differs from the one the API server has. One at a time: the next is computed from the
    /// answer.
    fn report(&mut self) {
        if self.reporting || self.seen.gone {
            return;
        }
        let next = status(&self.pod, &self.seen, &self.agent.facts, Timestamp::now());
        let Some(patch) = status_patch(&self.pod, &next) else { return };
        self.reporting = true;
        let (client, facts, pod) = (self.agent.client.clone(), self.facts.clone(), self.pod.clone());
        self.tasks.spawn(async move {
            let answer = send_status(client, &pod, patch).await;
            let _ = facts.send(Told::Reported(answer.map(Box::new))).await;
        });
    }
}

/// What is worth remembering of a pod: managed fields are not.
fn slim(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    pod.metadata.managed_fields = None;
    pod
}

/// Whether `next` is a later version of the same object (KEP-5504: resource versions compare as numbers).
fn newer(next: &Pod, now: &Pod) -> bool {
    let version = |pod: &Pod| pod.metadata.resource_version.as_ref().and_then(|v| v.parse::<u128>().ok());
    next.metadata.uid == now.metadata.uid && version(next) >= version(now)
}

/// The strategic merge patch that makes the pod's status `next`, or `None` where it is that already. Only what changed
/// is sent, and only our own conditions.
pub(crate) fn status_patch(pod: &Pod, next: &PodStatus) -> Option<serde_json::Value> {
    let before = pod.status.clone().unwrap_or_default();
    let (old, new) = (fields(&before)?, fields(next)?);
    let mut patch = serde_json::Map::new();
    for (key, value) in &new {
        if old.get(key) != Some(value) {
            let value = match key.as_str() {
                "conditions" => changed(old.get(key), value),
                "hostIPs" | "podIPs" => replaced(value),
                _ => value.clone(),
            };
            patch.insert(key.clone(), value);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), serde_json::Value::Null);
    }
    let uid = pod.metadata.uid.clone();
    (!patch.is_empty()).then(|| serde_json::json!({"metadata": {"uid": uid}, "status": patch}))
}

fn fields(status: &PodStatus) -> Option<serde_json::Map<String, serde_json::Value>> {
    match serde_json::to_value(status) {
        Ok(serde_json::Value::Object(map)) => Some(map),
        _ => None,
    }
}

/// A list that is not to be merged with the one there.
fn replaced(list: &serde_json::Value) -> serde_json::Value {
    let mut list = list.as_array().cloned().unwrap_or_default();
    list.push(serde_json::json!({"$patch": "replace"}));
    serde_json::Value::Array(list)
}

/// The conditions that differ.
fn changed(old: Option<&serde_json::Value>, new: &serde_json::Value) -> serde_json::Value {
    let old = old.and_then(|o| o.as_array()).map(Vec::as_slice).unwrap_or_default();
    let new = new.as_array().map(Vec::as_slice).unwrap_or_default();
    let list = new.iter().filter(|c| !old.contains(c)).map(|c| without_absent(old, c));
    let there = |list: &[serde_json::Value], kind: &str| list.iter().any(|c| c["type"] == kind);
    let over = PASSING.into_iter().filter(|kind| there(old, kind) && !there(new, kind));
    let over = over.map(|kind| serde_json::json!({"type": kind, "$patch": "delete"}));
    serde_json::Value::Array(list.chain(over).collect())
}

/// A merge keeps a reason or message that the new condition no longer has, unless told otherwise.
fn without_absent(old: &[serde_json::Value], new: &serde_json::Value) -> serde_json::Value {
    let mut new = new.clone();
    let before = old.iter().find(|c| c.get("type") == new.get("type"));
    if let (Some(serde_json::Value::Object(before)), serde_json::Value::Object(new)) = (before, &mut new) {
        for key in before.keys() {
            new.entry(key.clone()).or_insert(serde_json::Value::Null);
        }
    }
    new
}

/// Sends a patch of the status.
pub(crate) async fn send_status(client: kube::Client, pod: &Pod, patch: serde_json::Value) -> Result<Pod, kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client, namespace);
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await
}
