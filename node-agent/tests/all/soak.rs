//! Containers come and go while the agent is killed at random moments: each runs once, and nothing of any of them stays.
//! `cargo xtask soak` does it with [`FULL`] and ten thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::machine::{Machine, busybox};

/// Set: all of it, for which CI has no time.
const FULL: &str = "TRIMTAB_SOAK_FULL";
/// Pods whose containers start, end and go together, and the containers of each.
const PODS: usize = 10;
const EACH: usize = 5;

/// How many containers in all, and how many for each death of the agent.
fn sizes() -> (usize, usize) {
    if std::env::var_os(FULL).is_some() { (10_000, 500) } else { (200, 50) }
}

#[test]
fn containers_come_and_go_while_the_agent_dies() {
    let Some(()) = busybox() else { return };
    let ((containers, for_each_death), began) = (sizes(), Instant::now());
    let mut machine = Machine::start(false);
    fs::create_dir(machine.dir.path().join("said")).unwrap();
    for (name, kind) in [("keep0", 0), ("keep1", 1), ("keep2", 2)] {
        machine.create(name, pod(&machine, name, kind, true));
    }
    machine.until_all(|pods| pods.values().all(|pod| is(pod, "Running") && count(pod) == EACH));
    let before = Traces::of(&machine);
    assert!(before.0.len() > 100, "{before:#?}");
    let (waves, each) = (containers / (PODS * EACH), for_each_death / (PODS * EACH));
    let (mut last, mut fatal, mut deaths) = (Duration::from_secs(1), 0, 0);
    for wave in 0..waves {
        if wave % each == 0 {
            fatal = wave + usize::try_from(random()).unwrap() % each;
        }
        let (start, moment) = (Instant::now(), last.mul_f64(random() as f64 / u64::MAX as f64));
        std::thread::scope(|scope| {
            if wave == fatal {
                deaths += 1;
                println!("after {} containers and {moment:?} the agent dies", wave * PODS * EACH);
                scope.spawn(|| {
                    std::thread::park_timeout(moment);
                    machine.kill();
                });
            }
            come_and_go(&machine, wave);
        });
        last = start.elapsed();
    }
    println!("{containers} containers in {:?}", began.elapsed());
    ran_once(&machine, waves);
    let left = || Traces::of(&machine).0.symmetric_difference(&before.0).cloned().collect::<Vec<_>>();
    let since = Instant::now();
    while !left().is_empty() {
        assert!(since.elapsed() < Duration::from_secs(20), "{:#?}\n{}", left(), machine.log());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(machine.end(), deaths);
}

/// Half of the pods end by themselves, half are ended.
fn come_and_go(machine: &Machine, wave: usize) {
    let names: Vec<String> = (0..PODS).map(|n| format!("w{wave}-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        machine.create(name, pod(machine, name, n, n % 2 == 0));
    }
    machine.until_all(move |pods| {
        let stays = |name: &str| name.ends_with(['0', '2', '4', '6', '8']);
        let ready = |pod: &Pod, name: &str| {
            if stays(name) { is(pod, "Running") && count(pod) == EACH } else { is(pod, "Succeeded") }
        };
        pods.iter().all(|(name, pod)| name.starts_with("keep") || ready(pod, name))
    });
    names.iter().for_each(|name| machine.delete(name, 0));
    machine.until_all(|pods| pods.keys().all(|name| name.starts_with("keep")));
}

/// Containers that say their names and end, or stay. Namespaces of one's own or shared, memory, disk.
fn pod(machine: &Machine, name: &str, kind: usize, stays: bool) -> Value {
    let then = if stays { "exec sleep 1000" } else { "exit 0" };
    let container = |number: usize| {
        let script = format!("echo {name}-{number} >> /said/{name}; {then}");
        let mounts = [("said", "/said"), ("memory", "/memory"), ("disk", "/disk")];
        json!({"name": format!("c{number}"), "command": ["sh", "-c", script],
            "volumeMounts": mounts.map(|(name, path)| json!({"name": name, "mountPath": path}))})
    };
    json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "hostUsers": kind % 3 != 1, "shareProcessNamespace": kind % 3 == 2,
        "containers": (0..EACH).map(container).collect::<Vec<_>>(),
        "volumes": [{"name": "said", "hostPath": {"path": machine.dir.path().join("said")}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}}, {"name": "disk", "emptyDir": {}}],
    })
}

fn is(pod: &Pod, phase: &str) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase)
}

/// How many containers run.
fn count(pod: &Pod) -> usize {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
    statuses.iter().filter(|c| c.state.as_ref().is_some_and(|state| state.running.is_some())).count()
}

/// Every container has said its name, and no container twice.
fn ran_once(machine: &Machine, waves: usize) {
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    for file in fs::read_dir(machine.dir.path().join("said")).unwrap() {
        for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            *said.entry(line.to_owned()).or_default() += 1;
        }
    }
    said.retain(|name, _| !name.starts_with("keep"));
    let all = (0..waves * PODS * EACH).map(|n| format!("w{}-{}-{}", n / PODS / EACH, n / EACH % PODS, n % EACH));
    let wanted: BTreeMap<String, usize> = all.map(|name| (name, 1)).collect();
    let wrong: Vec<_> = wanted.iter().chain(&said).filter(|(name, _)| wanted.get(*name) != said.get(*name)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// All that is on this machine of an agent and its pods, one thing a line: mounts, files, cgroups, links, routes, rules,
/// processes with their namespaces, and the descriptors of those that outlive the agent.
#[derive(Debug)]
struct Traces(BTreeSet<String>);

impl Traces {
    fn of(machine: &Machine) -> Self {
        let dir = machine.dir.path();
        let mut all = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        // Without the numbers of the mount and of its peers.
        let words = mounts.lines().map(|line| line.split(' ').skip(2).collect::<Vec<_>>());
        let ours = words.filter(|words| words.iter().any(|word| Path::new(word).starts_with(dir)));
        all.extend(ours.map(|words| format!("mount {}", words.join(" "))));
        for below in ["data", "run", "log"] {
            files(&dir.join(below), &mut |path| all.insert(format!("file {}", path.display())));
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let root = hierarchy.path().join(machine.cgroup());
            files(&root, &mut |path| path.is_dir() && all.insert(format!("cgroup {}", path.display())));
        }
        for words in ["link", "route"] {
            let said = machine.in_space("ip", &["-br", words]);
            all.extend(said.lines().map(|line| format!("{words} {line}")));
        }
        all.extend(machine.in_space("nft", &["list", "ruleset"]).lines().map(|line| format!("nft {line}")));
        processes(machine, &mut all);
        Self(all)
    }
}

fn files(path: &Path, see: &mut dyn FnMut(&Path) -> bool) {
    see(path);
    // What is mounted there is another thing than a file.
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok()) {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), see),
            false => drop(see(&entry.path())),
        }
    }
}

fn processes(machine: &Machine, all: &mut BTreeSet<String>) {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    for pid in numbers.filter(|pid| *pid != std::process::id()) {
        let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let (command, cgroup) = (file("cmdline"), file("cgroup"));
        let dir = machine.dir.path().display().to_string();
        if !command.contains(&dir) && !cgroup.contains(&machine.cgroup()) {
            continue;
        }
        let name = file("comm").trim().to_owned();
        if name == "agent" {
            all.insert("an agent".to_owned());
            continue;
        }
        all.insert(format!("process {pid} {name}"));
        let links = |kind: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/{kind}")).into_iter().flatten().flatten();
            entries.filter_map(|e| Some((e.file_name(), fs::read_link(e.path()).ok()?))).collect::<Vec<_>>()
        };
        all.extend(links("ns").into_iter().map(|(_, space)| format!("namespace {}", space.display())));
        if name == "trimtab-shim" {
            // A new agent has other pipes, but no more.
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            for (_, what) in links("fd") {
                let kind = what.display().to_string();
                *seen.entry(kind.split(":[").next().unwrap_or_default().to_owned()).or_default() += 1;
            }
            all.extend(seen.into_iter().map(|(kind, count)| format!("fds of {pid}: {count} {kind}")));
        }
    }
}
