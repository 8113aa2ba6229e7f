//! Pods with containers of every kind and one pid namespace, on an agent that lives and on one that is killed at every
//! step, before and after it has had its effect: the same starts and ends in the same order, and the same status.

use std::fs;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};

use crate::machine::{Machine, busybox};

/// Says that it starts, in whose pid namespace, and how it ends.
fn container(name: &str, then: &str) -> Value {
    let script = format!(
        "say() {{ echo {name} \"$@\" >> /said/lines; }}; trap 'say is told to end; exit 0' TERM; \
         say starts below $(cat /proc/1/comm); {then}"
    );
    json!({"name": name, "command": ["sh", "-c", script], "volumeMounts": [{"name": "said", "mountPath": "/said"}]})
}

const STAYS: &str = "touch /tmp/up; while :; do sleep 0.05; done";

/// Two sidecars between and after init containers, two main containers with hooks; `two`, `web` and `log` do as told.
fn spec(machine: &Machine, pod: &str, policy: &str, [two, web, log]: [&str; 3]) -> Value {
    let said = machine.dir.path().join("said").join(pod);
    fs::create_dir_all(&said).unwrap();
    let mut web = container("web", web);
    let hook = json!({"exec": {"command": ["true"]}});
    web["lifecycle"] = json!({"postStart": hook, "preStop": hook});
    let mut first = container("s1", STAYS);
    first["startupProbe"] = json!({"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1});
    let mut second = container("s2", STAYS);
    (first["restartPolicy"], second["restartPolicy"]) = ("Always".into(), "Always".into());
    json!({
        "restartPolicy": policy, "shareProcessNamespace": true, "terminationGracePeriodSeconds": 100,
        "initContainers": [container("one", "say ends"), first, container("two", two), second],
        "containers": [web, container("log", log)],
        "volumes": [{"name": "said", "hostPath": {"path": said}}],
    })
}

/// Main containers start and end beside each other: their lines are sorted by name, so that only the order within each
/// counts.
fn said(machine: &Machine, pod: &str) -> Vec<String> {
    let text = fs::read_to_string(machine.dir.path().join("said").join(pod).join("lines")).unwrap();
    let main = |line: &str| ["web", "log"].into_iter().find(|name| line.starts_with(name));
    let mut lines: Vec<String> = text.lines().map(|line| line.replace(" below trimtab-pause", "")).collect();
    for beside in lines.chunk_by_mut(|a, b| main(a).is_some() && main(b).is_some()) {
        beside.sort_by_key(|line| main(line));
    }
    lines
}

/// `name: exit code, restarts` of each container, behind the phase.
fn ended(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let one = |c: &ContainerStatus| {
        let code = c.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
        format!("; {} {code:?} {}", c.name, c.restart_count)
    };
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let all: String = lists.into_iter().flatten().flatten().map(one).collect();
    status.phase.unwrap_or_default() + &all
}

fn phase(wanted: &'static str) -> impl Fn(Option<&Pod>) -> bool + Send + 'static {
    move |pod| pod.is_some_and(|pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(wanted))
}

/// Whether a container runs, by its status.
fn runs(name: &'static str) -> impl Fn(Option<&Pod>) -> bool + Send + 'static {
    move |pod| {
        let status = pod.and_then(|pod| pod.status.clone()).unwrap_or_default();
        let all = [status.init_container_statuses, status.container_statuses];
        let found = all.into_iter().flatten().flatten().find(|c| c.name == name);
        found.is_some_and(|c| c.state.is_some_and(|state| state.running.is_some()))
    }
}

const BEGIN: [&str; 6] = ["one starts", "one ends", "s1 starts", "two starts", "two ends", "s2 starts"];
const END: [&str; 2] = ["s2 is told to end", "s1 is told to end"];

fn all_lives(mortal: bool) {
    let Some(()) = busybox() else { return };
    let mut machine = Machine::start(mortal);
    let once = "test -e /said/was || { touch /said/was; say fails; exit 1; }; say ends";
    let lives: [(&str, &str, [&str; 3]); 6] = [
        ("deleted", "Always", ["say ends", STAYS, STAYS]),
        ("users", "Always", ["say ends", STAYS, STAYS]),
        ("half-way", "Always", [STAYS, STAYS, STAYS]),
        ("init-fails", "Never", ["say fails; exit 3", STAYS, STAYS]),
        ("main-fails", "Never", ["say ends", "say fails; exit 4", "say ends"]),
        ("again", "OnFailure", ["say ends", once, "say ends"]),
    ];
    for (pod, policy, scripts) in lives {
        let mut spec = spec(&machine, pod, policy, scripts);
        spec["hostUsers"] = (pod != "users").into();
        machine.create(pod, spec);
    }
    machine.until("half-way", runs("two"));
    machine.delete("half-way", 100);
    let ready = |pod: Option<&Pod>| {
        let conditions = pod.and_then(|pod| pod.status.clone()?.conditions).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    for pod in ["deleted", "users"] {
        machine.until(pod, ready);
        machine.delete(pod, 100);
    }

    assert!(machine.until("half-way", |pod| pod.is_none()).is_none());
    assert_eq!(said(&machine, "half-way"), [&BEGIN[..4], &["two is told to end", "s1 is told to end"]].concat());
    let main = ["log starts", "log is told to end", "web starts", "web is told to end"];
    for pod in ["deleted", "users"] {
        machine.until(pod, |pod| pod.is_none());
        assert_eq!(said(&machine, pod), [&BEGIN[..], &main, &END].concat(), "{pod}");
    }

    let failed = machine.until("init-fails", phase("Failed")).unwrap();
    assert_eq!(said(&machine, "init-fails"), [&BEGIN[..4], &["two fails", "s1 is told to end"]].concat());
    assert_eq!(ended(&failed), "Failed; one Some(0) 0; s1 Some(0) 0; two Some(3) 0; s2 None 0; log None 0; web None 0");
    let failed = machine.until("main-fails", phase("Failed")).unwrap();
    let main = ["log starts", "log ends", "web starts", "web fails"];
    assert_eq!(said(&machine, "main-fails"), [&BEGIN[..], &main, &END].concat());
    let all = "one Some(0) 0; s1 Some(0) 0; two Some(0) 0; s2 Some(0) 0";
    assert_eq!(ended(&failed), format!("Failed; {all}; log Some(0) 0; web Some(4) 0"));
    let good = machine.until("again", phase("Succeeded")).unwrap();
    let main = ["log starts", "log ends", "web starts", "web fails", "web starts", "web ends"];
    assert_eq!(said(&machine, "again"), [&BEGIN[..], &main, &END].concat());
    assert_eq!(ended(&good), format!("Succeeded; {all}; log Some(0) 0; web Some(0) 1"));

    for pod in ["init-fails", "main-fails", "again"] {
        machine.delete(pod, 100);
        machine.until(pod, |pod| pod.is_none());
    }
    machine.clean();
    let deaths = machine.end();
    println!("the agent died {deaths} times");
    for step in STEPS.into_iter().filter(|_| mortal) {
        assert!(
            machine.dir.path().join("deaths").join(format!("deleted-{step}-0")).exists(),
            "it did not die at {step}"
        );
    }
}

/// Some of the steps at which it must have died.
const STEPS: [&str; 17] = [
    "attach",
    "mount",
    "sandbox",
    "pull-one-0",
    "start-one-0",
    "remove-one-0",
    "start-s1-0",
    "Startup-s1-0",
    "start-two-0",
    "start-s2-0",
    "start-web-0",
    "PostStart-web-0",
    "PreStop-web-0",
    "signal-15-web-0",
    "signal-15-s2-0",
    "teardown",
    "forget",
];

#[test]
fn containers_start_and_end_in_order() {
    all_lives(false);
}

#[test]
fn an_agent_that_is_killed_at_every_step_changes_nothing() {
    all_lives(true);
}
