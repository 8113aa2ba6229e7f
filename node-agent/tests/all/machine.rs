//! A machine: a network namespace with an API server that survives and an agent that need not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use apiserver::attributes::Attributes;
use apiserver::authz::{Authorizer, Decision};
use apiserver::parts::Authenticator;
use apiserver::view::View;
use apiserver::{Config, Parts, Server, User};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, WatchEvent, WatchParams};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use store::memory::Memory;
use tokio::runtime::Runtime;

/// Pods by name.
pub(crate) type Pods = BTreeMap<String, Pod>;

/// What a pod comes to is awaited no longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// `None`, with a line that says so, where this machine has no busybox.
pub(crate) fn busybox() -> Option<()> {
    if Path::new("/bin/busybox").exists() {
        return Some(());
    }
    println!("skipped: /bin/busybox (package busybox-static) is not there");
    None
}

struct Anybody;

impl Authenticator for Anybody {
    fn certificate(&self, _: &[CertificateDer<'_>], _: api::Timestamp) -> Option<User> {
        None
    }

    fn token(&self, _: &str, _: &dyn View, _: api::Timestamp) -> Option<User> {
        None
    }
}

impl Authorizer for Anybody {
    fn authorize(&self, _: &Attributes, _: &dyn View) -> Decision {
        Decision::Allow { reason: String::new() }
    }
}

pub(crate) struct Machine {
    pub(crate) dir: tempfile::TempDir,
    space: Space,
    instance: String,
    /// All its threads live in the namespace.
    runtime: Runtime,
    server: String,
    pub(crate) pods: Api<Pod>,
    keeper: Option<Keeper>,
}

/// A network namespace; gone when dropped.
struct Space(String);

impl Space {
    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Starts the agent again whenever it dies.
struct Keeper {
    thread: JoinHandle<Vec<ExitStatus>>,
    over: Arc<AtomicBool>,
    agent: Arc<Mutex<Child>>,
}

impl Machine {
    /// A machine with a running agent that dies at every step if `mortal`.
    pub(crate) fn start(mortal: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let instance = format!("{:03x}{number}", std::process::id() & 0xfff);
        let space = Space(format!("tt-agent-{}-{number}", std::process::id()));
        run("ip", &["netns", "add", &space.0]);
        for words in [
            "link set lo up",
            "link add uplink type bridge",
            "addr add 192.168.7.1/24 dev uplink",
            "link set uplink up",
        ] {
            run("ip", &[&["-n", &space.0], &words.split(' ').collect::<Vec<_>>()[..]].concat());
        }
        let dir = tempfile::tempdir().unwrap();
        let archive = e2e::cluster::busybox_archive(dir.path()).unwrap();
        runtime_image::Store::open(&dir.path().join("images")).unwrap().import(&archive, None).unwrap();
        let builder = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let runtime = within(&space.path(), builder);
        let listener = within(&space.path(), || TcpListener::bind("127.0.0.1:0").unwrap());
        let server = format!("http://{}", listener.local_addr().unwrap());
        let client = runtime.block_on(serve(listener));
        let mut machine =
            Self { dir, space, instance, runtime, server, pods: Api::default_namespaced(client), keeper: None };
        machine.keeper = Some(machine.keep(mortal));
        machine
    }

    fn keep(&self, mortal: bool) -> Keeper {
        let agent = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/agent");
        let mut words = vec!["run".into(), self.dir.path().display().to_string(), self.instance.clone()];
        words.push(self.server.clone());
        if mortal {
            let deaths = self.dir.path().join("deaths");
            fs::create_dir(&deaths).unwrap();
            words.push(deaths.display().to_string());
        }
        let (place, log) = (self.space.path(), self.dir.path().join("agent.log"));
        let spawn = move || {
            let (agent, words) = (agent.clone(), words.clone());
            let errors = File::options().create(true).append(true).open(&log).unwrap();
            within(&place, move || {
                Command::new(agent).args(words).stdin(Stdio::null()).stderr(errors).spawn().expect("the example agent")
            })
        };
        let (first, over) = (Arc::new(Mutex::new(spawn())), Arc::new(AtomicBool::new(false)));
        let (agent, ended) = (first.clone(), over.clone());
        let thread = thread::spawn(move || {
            let mut deaths = Vec::new();
            loop {
                let pid = Pid::from_raw(agent.lock().unwrap().id().cast_signed()).unwrap();
                // Not reaped yet: the number stays its own until it is waited for under the lock.
                let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
                rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
                let mut child = agent.lock().unwrap();
                deaths.push(child.wait().unwrap());
                if ended.load(Ordering::Acquire) {
                    return deaths;
                }
                *child = spawn();
            }
        });
        Keeper { thread, over, agent: first }
    }

    /// Ends the agent for good; how often it died before.
    pub(crate) fn end(&mut self) -> usize {
        let Some(keeper) = self.keeper.take() else { return 0 };
        {
            let child = keeper.agent.lock().unwrap();
            keeper.over.store(true, Ordering::Release);
            kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::KILL).unwrap();
        }
        let deaths = keeper.thread.join().unwrap();
        assert!(deaths.iter().all(|status| status.signal() == Some(9)), "{deaths:?}\n{}", self.log());
        deaths.len() - 1
    }

    /// Kills the agent, wherever it is; the next one begins at once.
    pub(crate) fn kill(&self) {
        let Some(keeper) = &self.keeper else { return };
        let child = keeper.agent.lock().unwrap();
        kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::KILL).unwrap();
    }

    /// Below every hierarchy's root.
    pub(crate) fn cgroup(&self) -> String {
        format!("trimtab-{}", self.instance)
    }

    /// What a program prints in the network namespace.
    pub(crate) fn in_space(&self, program: &str, args: &[&str]) -> String {
        let space = format!("--net={}", self.space.path().display());
        run("nsenter", &[&[&space, program], args].concat())
    }

    /// What the agents have said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    /// Runs async code in the namespace.
    pub(crate) fn block_on<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.block_on(self.runtime.spawn(work)).unwrap()
    }

    /// Work on a thread in the namespace.
    pub(crate) fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        within(&self.space.path(), work)
    }

    /// Work on a thread in the network of a pod.
    pub(crate) fn in_pod<T: Send + 'static>(&self, pod: &Pod, work: impl FnOnce() -> T + Send + 'static) -> T {
        within(&self.dir.path().join("run/netns").join(pod.metadata.uid.as_deref().unwrap()), work)
    }

    /// Creates a pod that is bound to this machine.
    pub(crate) fn create(&self, name: &str, spec: Value) {
        let mut pod = json!({"metadata": {"name": name, "labels": {"app": "test"}}, "spec": spec});
        pod["spec"]["nodeName"] = "n1".into();
        for list in ["containers", "initContainers"] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                container["image"] = "trimtab.local/busybox:latest".into();
                container["imagePullPolicy"] = "Never".into();
            }
        }
        let (pods, pod) = (self.pods.clone(), serde_json::from_value(pod).unwrap());
        self.block_on(async move { pods.create(&Default::default(), &pod).await.unwrap() });
    }

    pub(crate) fn delete(&self, name: &str, grace: u32) {
        let (pods, name) = (self.pods.clone(), name.to_owned());
        let params = kube::api::DeleteParams { grace_period_seconds: Some(grace), ..Default::default() };
        self.block_on(async move { pods.delete(&name, &params).await.map(drop).unwrap() });
    }

    /// Waits until a pod is as wanted; `None` is a pod that is gone.
    pub(crate) fn until(&self, name: &str, wanted: impl Fn(Option<&Pod>) -> bool + Send + 'static) -> Option<Pod> {
        let of = name.to_owned();
        self.until_all(move |pods| wanted(pods.get(&of))).remove(name)
    }

    /// Waits until all pods together are as wanted.
    pub(crate) fn until_all(&self, wanted: impl Fn(&Pods) -> bool + Send + 'static) -> Pods {
        let (pods, seen) = (self.pods.clone(), Arc::new(Mutex::new(Pods::new())));
        let last = seen.clone();
        let done = self.block_on(async move {
            let look = move |pods: &Pods| {
                last.lock().unwrap().clone_from(pods);
                wanted(pods)
            };
            tokio::time::timeout(PATIENCE, follow(&pods, look)).await
        });
        done.unwrap_or_else(|_| {
            let seen = seen.lock().unwrap();
            let told = seen.values().map(|pod| format!("{:?} {}\n", pod.metadata.name, json!(pod.status)));
            panic!("{}{}", told.collect::<String>(), self.log())
        })
    }

    /// What a container has printed, without the times.
    pub(crate) fn printed(&self, pod: &str, container: &str) -> String {
        let folders = fs::read_dir(self.dir.path().join("log")).unwrap().flatten();
        let folder =
            folders.map(|f| f.path()).find(|f| f.to_string_lossy().contains(&format!("/default_{pod}_"))).unwrap();
        let text = fs::read_to_string(folder.join(container).join("0.log")).unwrap_or_default();
        text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(|line| format!("{line}\n")).collect()
    }

    /// Nothing of a pod stays: its last files go a moment after its object.
    pub(crate) fn clean(&self) {
        let began = Instant::now();
        while !self.traces().is_empty() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "left: {:#?}\n{}\n{}",
                self.traces(),
                run("find", &[self.dir.path().join("data").to_str().unwrap()]),
                self.log()
            );
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// What is on this machine of pods: processes, mounts, cgroups, links and files.
    fn traces(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned);
        let (pods, runs) = (self.dir.path().join("data/pods"), self.dir.path().join("run/pods"));
        let mut left: Vec<String> = points.filter(|point| Path::new(point).starts_with(&pods)).collect();
        let entries = |dir: &PathBuf| fs::read_dir(dir).unwrap().flatten().map(|e| e.path().display().to_string());
        left.extend(entries(&pods).chain(entries(&runs)));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            for class in ["", "burstable", "besteffort"] {
                let dir = hierarchy.path().join(self.cgroup()).join(class);
                let below = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path().display().to_string());
                left.extend(below.filter(|path| path.contains("/pod")));
            }
        }
        let links = run("ip", &["-n", &self.space.0, "-br", "link"]);
        left.extend(links.lines().filter(|line| line.starts_with("tt") && line.contains('@')).map(str::to_owned));
        left
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            if let Some(keeper) = self.keeper.take() {
                keeper.over.store(true, Ordering::Release);
                let pid = keeper.agent.lock().map(|child| child.id()).unwrap_or_default();
                let _ = Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, Signal::KILL));
                let _ = keeper.thread.join();
            }
        } else {
            self.end();
        }
        let (instance, data, run_dir) =
            (self.instance.clone(), self.dir.path().join("data"), self.dir.path().join("run"));
        let purged = self
            .runtime
            .block_on(self.runtime.spawn(async move { node_agent::purge(&instance, &data, &run_dir).await }));
        if !thread::panicking() {
            purged.unwrap().unwrap();
        }
    }
}

async fn follow(pods: &Api<Pod>, wanted: impl Fn(&Pods) -> bool) -> Pods {
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
    loop {
        let list = pods.list(&kube::api::ListParams::default()).await.unwrap();
        let mut all: Pods = list.items.into_iter().map(|pod| (name(&pod), pod)).collect();
        if wanted(&all) {
            return all;
        }
        let from = list.metadata.resource_version.unwrap_or_default();
        let mut events = std::pin::pin!(pods.watch(&WatchParams::default(), &from).await.unwrap());
        while let Some(Ok(event)) = events.next().await {
            match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    all.insert(name(&pod), pod);
                }
                WatchEvent::Deleted(pod) => {
                    all.remove(&name(&pod));
                }
                _ => continue,
            }
            if wanted(&all) {
                return all;
            }
        }
    }
}

/// An API server that lets everybody do everything, over plain HTTP; a client of it.
async fn serve(listener: TcpListener) -> Client {
    let parts = Parts {
        dial: Arc::new(apiserver::proxy::Direct),
        authenticator: Arc::new(Anybody),
        authorizers: vec![Arc::new(Anybody)],
        admission: Vec::new(),
        answers: Vec::new(),
        connects: Vec::new(),
        audit: None,
        pages: None,
    };
    let server = Server::start(Config::default(), Arc::new(Memory::new()), parts).await.unwrap();
    let user = || User { name: "n1".into(), groups: vec!["system:masters".into()], ..User::default() };
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let served = server.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut pipe = served.local(user());
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut pipe).await });
        }
    });
    client::in_process(move || server.local(user()))
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs work on a thread of its own in a namespace.
fn within<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(namespace).unwrap();
    let inside = move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    thread::spawn(inside).join().unwrap()
}
