//! A node that does what the plan says, in virtual time, and writes down what happened.

use std::collections::BTreeMap;

use api::Timestamp;
use api::k8s_openapi::api::core::v1::Pod;
use jiff::SignedDuration;
use node_plan::observed::ImageFacts;
use node_plan::step::{Ended, Process, PullFailure, Pulled, ResizeFailure, StartFailure};
use node_plan::{Fact, Lifecycle, NodeFacts, Observed, PullPolicy, Step, begin, decide, learn, status};

/// The pod, what was seen of it, and the log.
pub(crate) struct Story {
    pub(crate) pod: Pod,
    pub(crate) seen: Observed,
    pub(crate) log: String,
    /// What goes wrong, by container: the image, or the start.
    pub(crate) no_image: bool,
    pub(crate) bad_start: BTreeMap<String, StartFailure>,
    /// Why no container is given other resources.
    pub(crate) no_room: Option<&'static str>,
    /// Hooks that the story ends itself.
    pub(crate) slow_hooks: bool,
    /// Signals that end a container: it exits with 128 + signal at once. SIGKILL always does.
    pub(crate) deaf: bool,
    pub(crate) probes: BTreeMap<&'static str, bool>,
    /// The agent is killed at this step: before it has done anything for it, or (true) when it is done but not noted.
    pub(crate) crash: Option<(usize, bool)>,
    /// Steps so far.
    pub(crate) steps: usize,
    pub(crate) node: Node,
    start: Timestamp,
    now: Timestamp,
    quiet: bool,
}

/// What is really on the node, whoever knows of it.
#[derive(Default)]
pub(crate) struct Node {
    /// The shim's containers, where there is a shim.
    shim: Option<BTreeMap<String, (Process, Option<Ended>)>>,
    /// Starts and ends in their order.
    pub(crate) log: String,
}

impl Node {
    fn say(&mut self, text: &str) {
        self.log.push_str(&format!("{text}\n"));
    }

    fn start(&mut self, run: String, process: Process) -> Result<Process, StartFailure> {
        let Some(shim) = &mut self.shim else { return Err(StartFailure::Create("no sandbox".into())) };
        if shim.contains_key(&run) {
            return Err(StartFailure::Run(format!("container {run} exists already")));
        }
        shim.insert(run.clone(), (process, None));
        self.say(&format!("{run} starts"));
        Ok(process)
    }

    fn end(&mut self, run: &str, ended: Ended) {
        if let Some((_, exit @ None)) = self.shim.as_mut().and_then(|shim| shim.get_mut(run)) {
            *exit = Some(ended);
            self.say(&format!("{run} ends with {}", ended.code));
        }
    }

    fn tear_down(&mut self) {
        if self.shim.take().is_some() {
            self.say("torn down");
        }
    }
}

impl Story {
    pub(crate) fn new(pod: Pod) -> Self {
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        Self {
            pod,
            seen: Observed::new(start),
            log: String::new(),
            no_image: false,
            bad_start: BTreeMap::new(),
            no_room: None,
            slow_hooks: false,
            deaf: false,
            probes: BTreeMap::new(),
            crash: None,
            steps: 0,
            node: Node::default(),
            start,
            now: start,
            quiet: false,
        }
    }

    /// Until nothing is left to do at this moment.
    pub(crate) fn settle(&mut self) -> Option<Timestamp> {
        for _ in 0..200 {
            let outcome = decide(&self.pod, &self.seen, self.now);
            assert_eq!(outcome, decide(&self.pod, &self.seen, self.now), "a decision must not change by itself");
            if outcome.effects.is_empty() {
                self.pod.status = Some(self.status());
                return outcome.wake_at;
            }
            if self.crash.is_some() {
                self.perform_all(outcome.effects);
                continue;
            }
            for step in outcome.effects {
                self.begin(&step);
                if let Some(fact) = self.effect(step) {
                    self.learn(fact);
                }
            }
        }
        panic!("the plan does not come to rest:\n{}", self.log);
    }

    /// Lets time pass, with everything that is due in it.
    pub(crate) fn pass(&mut self, seconds: i64) {
        let end = self.now + SignedDuration::from_secs(seconds);
        while let Some(wake) = self.settle().filter(|at| *at <= end) {
            self.now = wake.max(self.now);
        }
        self.now = end;
        self.settle();
    }

    /// Set up without a word.
    pub(crate) fn running(mut self) -> Self {
        self.quiet = true;
        self.settle();
        self.quiet = false;
        self
    }

    /// A container ends by itself.
    pub(crate) fn exit(&mut self, container: &str, code: i32) {
        self.say(&format!("{container} exits with {code}"));
        let run = self.seen.containers.get(container).and_then(|seen| seen.current.clone());
        let run = run.unwrap_or_else(|| panic!("{container} has not run:\n{}", self.log)).id;
        if let Some(fact) = self.ended(&run, code, None) {
            self.learn(fact);
        }
        self.settle();
    }

    pub(crate) fn delete(&mut self, grace: i64) {
        self.say(&format!("deleted, grace {grace}"));
        self.pod.metadata.deletion_timestamp =
            Some(api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.settle();
    }

    pub(crate) fn fact(&mut self, fact: Fact) {
        self.learn(fact);
        self.settle();
    }

    pub(crate) fn status(&self) -> api::k8s_openapi::api::core::v1::PodStatus {
        let node = NodeFacts { name: "n1".into(), ips: vec!["10.0.0.1".parse().unwrap()] };
        status(&self.pod, &self.seen, &node, self.now)
    }

    /// `phase; container: state ...` in a line, then the conditions that are not true.
    pub(crate) fn summary(&self) -> String {
        let status = self.status();
        let mut text = status.phase.clone().unwrap();
        if let Some(reason) = &status.reason {
            text.push_str(&format!(" ({reason})"));
        }
        let lists = [&status.init_container_statuses, &status.container_statuses];
        for c in lists.into_iter().flatten().flatten() {
            let state = c.state.clone().unwrap();
            let state = if let Some(w) = state.waiting {
                format!("waiting {}", w.reason.unwrap_or_default())
            } else if let Some(t) = state.terminated {
                format!("terminated {} {}", t.reason.unwrap_or_default(), t.exit_code)
            } else {
                "running".into()
            };
            let ready = if c.ready { " ready" } else { "" };
            text.push_str(&format!("; {}: {state}{ready} restarts={}", c.name, c.restart_count));
        }
        for c in status.conditions.iter().flatten().filter(|c| c.status != "True") {
            text.push_str(&format!(
                "\n  not {}: {} {}",
                c.type_,
                c.reason.clone().unwrap_or_default(),
                c.message.clone().unwrap_or_default()
            ));
        }
        text.push('\n');
        text
    }

    fn at(&self) -> i64 {
        self.now.duration_since(self.start).as_secs()
    }

    fn say(&mut self, text: &str) {
        if !self.quiet {
            self.log.push_str(&format!("{:>4}s {text}\n", self.at()));
        }
    }

    fn begin(&mut self, step: &Step) {
        self.say(&told(step));
        for note in begin(&mut self.seen, step, self.now) {
            self.say(&format!("  event {}: {}", note.reason, note.message));
        }
        // What has begun is not asked for again while it goes on.
        let again = decide(&self.pod, &self.seen, self.now).effects;
        assert!(!again.contains(step), "asked for twice: {step:?}");
    }

    /// As the agent does it: all that is to be done is noted as begun, then done, unless the agent is killed meanwhile.
    fn perform_all(&mut self, steps: Vec<Step>) {
        for step in &steps {
            self.begin(step);
        }
        for step in steps {
            self.steps += 1;
            if self.crash == Some((self.steps, false)) {
                return self.restart();
            }
            let fact = self.effect(step);
            if self.crash == Some((self.steps, true)) {
                return self.restart();
            }
            if let Some(fact) = fact {
                self.learn(fact);
            }
        }
    }

    /// A new agent: it knows what was noted, and asks the shim.
    fn restart(&mut self) {
        self.say("the agent is killed");
        self.seen = serde_json::from_str(&serde_json::to_string(&self.seen).unwrap()).unwrap();
        self.seen.adopt();
        if self.seen.sandbox.done().is_none() {
            return;
        }
        let list = self.node.shim.clone();
        for (run, (process, exit)) in list.clone().unwrap_or_default() {
            self.learn(Fact::Process { run, process, exit, message: String::new() });
        }
        if list.is_none() {
            self.learn(Fact::SandboxLost);
        }
    }

    /// Does a step; answers what there is to be noted of it.
    fn effect(&mut self, step: Step) -> Option<Fact> {
        let process = Process { pid: 7, started_at: self.now };
        Some(match step {
            Step::AttachNetwork => Fact::Network(Ok(vec!["10.1.0.2".parse().unwrap()])),
            Step::MountVolumes => Fact::Volumes(Ok(None)),
            Step::StartSandbox => {
                self.node.shim.get_or_insert_default();
                Fact::Sandbox(Ok(()))
            }
            Step::PullImage { container, attempt, policy, .. } => {
                if policy == PullPolicy::Always {
                    self.learn(Fact::Pulling { container: container.clone() });
                }
                let image = ImageFacts {
                    name: "docker.io/library/busybox:latest".into(),
                    reference: "busybox@sha256:1".into(),
                    id: "sha256:2".into(),
                    stop_signal: None,
                };
                let result = if self.no_image {
                    Err(PullFailure::Failed("no such host".into()))
                } else {
                    Ok(Pulled { image, fetched: None })
                };
                Fact::Image { container, attempt, result }
            }
            Step::StartContainer { container, attempt, .. } => {
                let result = match self.bad_start.get(&container) {
                    Some(failure) => Err(failure.clone()),
                    None => self.node.start(node_plan::run_id(&container, attempt), process),
                };
                Fact::Started { container, attempt, result }
            }
            Step::Resize { container, run, resources } => {
                let refusal = self.no_room.map(|reason| ResizeFailure { reason, message: "too much".into() });
                Fact::Resized { container, run, resources, result: refusal.map_or(Ok(()), Err) }
            }
            Step::RunHook { .. } if self.slow_hooks => return None,
            Step::RunHook { container, run, which, .. } => Fact::Hook { container, run, which, result: Ok(()) },
            Step::RunProbe { container, run, which } => {
                let name = format!("{which:?}").to_lowercase();
                let ok = self.probes.iter().find(|(k, _)| **k == name).is_none_or(|(_, ok)| *ok);
                Fact::Probe { container, run, which, ok, output: "no".into() }
            }
            Step::Signal { run, signal, .. } if !self.deaf || signal == 9 => {
                return self.ended(&run, 128 + signal, Some(signal));
            }
            Step::RemoveRun { container, run } => {
                self.node.shim.as_mut().and_then(|shim| shim.remove(&run));
                Fact::Removed { container, run }
            }
            Step::Teardown => {
                self.node.tear_down();
                Fact::TornDown(Ok(()))
            }
            Step::Forget => Fact::Forgotten(Ok(())),
            _ => return None,
        })
    }

    /// A run's process ends, if it has one; what its shim then tells.
    fn ended(&mut self, run: &str, code: i32, signal: Option<i32>) -> Option<Fact> {
        self.node.end(run, Ended { code, signal, oom_killed: false, finished_at: self.now });
        let (process, exit) = *self.node.shim.as_ref()?.get(run)?;
        Some(Fact::Process { run: run.into(), process, exit, message: String::new() })
    }

    fn learn(&mut self, fact: Fact) {
        for note in learn(&self.pod, &mut self.seen, fact, self.now) {
            self.say(&format!("  event {}: {}", note.reason, note.message));
        }
    }
}

fn told(step: &Step) -> String {
    match step {
        Step::Conclude(verdict) => format!("conclude {}", verdict.reason),
        Step::AttachNetwork => "attach the network".into(),
        Step::MountVolumes => "mount volumes".into(),
        Step::StartSandbox => "start the sandbox".into(),
        Step::PullImage { container, .. } => format!("find the image of {container}"),
        Step::StartContainer { container, attempt, .. } => format!("start {container}-{attempt}"),
        Step::Resize { run, .. } => format!("resize {run}"),
        Step::RunHook { run, which: Lifecycle::PostStart, .. } => format!("postStart of {run}"),
        Step::RunHook { run, which: Lifecycle::PreStop, .. } => format!("preStop of {run}"),
        Step::RunProbe { run, which, .. } => format!("{which:?} probe of {run}"),
        Step::StopPod { grace_seconds, .. } => format!("stop the pod within {grace_seconds} s"),
        Step::StopRun { run, .. } => format!("stop {run}"),
        Step::Signal { run, signal, .. } => format!("signal {signal} to {run}"),
        Step::RemoveRun { run, .. } => format!("remove {run}"),
        Step::TellBackoff { container, .. } => format!("tell that {container} waits"),
        Step::Teardown => "tear down".into(),
        Step::Forget => "forget".into(),
    }
}
