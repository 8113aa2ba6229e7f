//! A story: one line each for a node, a pod or something that happens; what is decided is the output.
//!
//! ```text
//! node a cpu=4 memory=8Gi pods=10 gpu=1 zone=z1 taint=key=value:NoSchedule cordoned
//! pod p cpu=1 priority=5 app=web on=a uses zone=z1 prefers=zone=z2 tolerates=key=value port=80 of=rs
//!     spread=zone/1/app=web policies=affinity|taints|domains likes=zone/10/app=web dislikes=zone/10/app=web
//!     near=zone/app=web far=zone/app=web never gated started=100 nominated=a
//! claim c ReadWriteOncePod; pods use it with the word claim=c
//! budget b app=web allowed=1
//! run | wait 5s | drop pod p | drop node a | fail p | done p
//! ```

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use reconcile::{Effect, Timestamp};
use scheduler::Scheduler;
use serde_json::{Value, json};

pub(crate) struct Story {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: Timestamp,
    pods: Vec<Pod>,
    output: String,
}

/// Plays a story and returns what was decided.
pub(crate) fn play(text: &str) -> String {
    let mut story = Story::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        story.line(line);
    }
    story.output
}

fn labels(words: &[&str]) -> Value {
    let pairs = words.iter().filter_map(|w| w.split_once('='));
    let label = |key: &str| matches!(key, "app" | "zone" | "tier");
    pairs
        .filter(|(k, v)| label(k) && !v.contains('/'))
        .map(|(k, v)| (k.to_owned(), json!(v)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn all<'a>(words: &'a [&str], key: &'a str) -> impl Iterator<Item = &'a str> {
    words.iter().filter_map(move |w| w.strip_prefix(key)?.strip_prefix('='))
}

fn one<'a>(words: &'a [&str], key: &'a str) -> Option<&'a str> {
    all(words, key).next()
}

fn pair(text: &str) -> Value {
    let (key, value) = text.split_once('=').unwrap();
    json!({ key: value })
}

fn amounts(words: &[&str]) -> serde_json::Map<String, Value> {
    let names = [
        ("cpu", "cpu"),
        ("memory", "memory"),
        ("storage", "ephemeral-storage"),
        ("gpu", "example.com/gpu"),
        ("pods", "pods"),
    ];
    names.iter().filter_map(|(word, name)| Some(((*name).to_owned(), json!(one(words, word)?)))).collect()
}

pub(crate) fn node(name: &str, words: &[&str]) -> Node {
    let mut labels = labels(words);
    labels["kubernetes.io/hostname"] = json!(name);
    let mut allocatable = amounts(words);
    allocatable.entry("pods").or_insert(json!("110"));
    let taint = |t: &str| {
        let (what, effect) = t.rsplit_once(':').unwrap();
        let (key, value) = what.split_once('=').unwrap_or((what, ""));
        json!({"key": key, "value": value, "effect": effect})
    };
    let taints: Vec<Value> = all(words, "taint").map(taint).collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": words.contains(&"cordoned"), "taints": taints},
        "status": {"allocatable": allocatable},
    }))
    .unwrap()
}

fn affinity(words: &[&str]) -> Value {
    let term = |t: &str| {
        let (key, selector) = t.rsplit_once('/').unwrap();
        let labels = pair(selector);
        json!({"topologyKey": key, "labelSelector": {"matchLabels": labels}})
    };
    let terms = |key: &str| all(words, key).map(term).collect::<Vec<_>>();
    let prefers = all(words, "prefers").map(|p| {
        let (key, value) = p.split_once('=').unwrap();
        json!({"weight": 10, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}})
    });
    let weighed = |t: &str| {
        let [selector, weight, key] = t.rsplitn(3, '/').collect::<Vec<_>>().try_into().unwrap();
        let term = json!({"topologyKey": key, "labelSelector": {"matchLabels": pair(selector)}});
        json!({"weight": weight.parse::<i32>().unwrap(), "podAffinityTerm": term})
    };
    let preferred = |key: &str| all(words, key).map(weighed).collect::<Vec<_>>();
    json!({
        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms("near"),
            "preferredDuringSchedulingIgnoredDuringExecution": preferred("likes")},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms("far"),
            "preferredDuringSchedulingIgnoredDuringExecution": preferred("dislikes")},
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": prefers.collect::<Vec<_>>()},
    })
}

pub(crate) fn pod(name: &str, words: &[&str]) -> Pod {
    let policy = |name: &str| all(words, "policies").any(|p| p == name);
    let spread = |t: &str| {
        let [selector, skew, key] = t.rsplitn(3, '/').collect::<Vec<_>>().try_into().unwrap();
        let (unsatisfiable, skew) = match skew.strip_suffix('~') {
            Some(skew) => ("ScheduleAnyway", skew),
            None => ("DoNotSchedule", skew),
        };
        let skew: i32 = skew.parse().unwrap();
        let labels = pair(selector);
        json!({"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": unsatisfiable,
            "labelSelector": {"matchLabels": labels},
            "nodeAffinityPolicy": policy("affinity").then_some("Ignore"),
            "nodeTaintsPolicy": policy("taints").then_some("Honor"),
            "minDomains": (policy("domains") && unsatisfiable == "DoNotSchedule").then_some(3)})
    };
    let tolerate = |t: &str| match t.split_once('=') {
        Some((key, value)) => json!({"key": key, "value": value}),
        None => json!({"key": t, "operator": "Exists"}),
    };
    let port = |p: &str| json!({"containerPort": 1, "hostPort": p.parse::<i32>().unwrap()});
    let owner =
        |o: &str| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": o, "uid": o, "controller": true});
    let uses: serde_json::Map<String, Value> = words
        .iter()
        .skip_while(|w| **w != "uses")
        .skip(1)
        .take(1)
        .map(|w| w.split_once('=').map(|(k, v)| (k.to_owned(), json!(v))).unwrap())
        .collect();
    let own: Vec<&str> = words.iter().copied().take_while(|w| *w != "uses").collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": labels(&own),
            "ownerReferences": all(words, "of").map(owner).collect::<Vec<_>>()},
        "spec": {
            "priority": one(words, "priority").map_or(0, |p| p.parse::<i32>().unwrap()),
            "nodeName": one(words, "on").unwrap_or_default(),
            "nodeSelector": uses,
            "affinity": affinity(words),
            "preemptionPolicy": if words.contains(&"never") { json!("Never") } else { Value::Null },
            "volumes": all(words, "claim")
                .map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}}))
                .collect::<Vec<_>>(),
            "schedulingGates": if words.contains(&"gated") { json!([{"name": "g"}]) } else { json!([]) },
            "tolerations": all(words, "tolerates").map(tolerate).collect::<Vec<_>>(),
            "topologySpreadConstraints": all(words, "spread").map(spread).collect::<Vec<_>>(),
            "containers": [{"name": "c", "image": one(words, "image"), "resources": {"requests": amounts(words)},
                "ports": all(words, "port").map(port).collect::<Vec<_>>()}],
        },
        "status": {"startTime": one(words, "started").map(|s| Timestamp::from_second(s.parse().unwrap()).unwrap()),
            "nominatedNodeName": one(words, "nominated")},
    }))
    .unwrap()
}

/// Whom effects take away and where they expect pods, if they do.
fn evicted(effects: &[Effect]) -> String {
    let line = |effect: &Effect| match effect {
        Effect::Delete { target, .. } => Some(format!("\n  evicts {}", target.object.name)),
        Effect::Patch { target, body, .. } => {
            let node = body["status"].get("nominatedNodeName")?;
            Some(format!("\n  expects {} on {node}", target.object.name))
        }
        _ => None,
    };
    effects.iter().filter_map(line).collect()
}

impl Story {
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_second(1_000_000).unwrap();
        Self { scheduler: Scheduler::new(), now, pods: Vec::new(), output: String::new() }
    }

    pub(crate) fn add_pod(&mut self, pod: Pod) {
        self.scheduler.set_pod(&pod, self.now);
        self.pods.retain(|p| p.metadata.name != pod.metadata.name);
        self.pods.push(pod);
    }

    fn learn<T: reconcile::Kind>(&mut self, object: T) {
        let resource = reconcile::Resource::of::<T>();
        let change = reconcile::Change { resource, before: None, after: Some(Arc::new(object)) };
        reconcile::Planner::observe(&mut self.scheduler, &change, self.now);
    }

    fn pod_named(&self, name: &str) -> Pod {
        self.pods.iter().find(|p| p.metadata.name.as_deref() == Some(name)).cloned().unwrap()
    }

    fn name(&self, name: &str) -> api::ObjectName {
        api::ObjectName { namespace: "default".to_owned(), name: name.to_owned() }
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["node", name, rest @ ..] => self.scheduler.set_node(&node(name, rest), self.now),
            ["pod", name, rest @ ..] => self.add_pod(pod(name, rest)),
            ["drop", "node", name] => self.scheduler.remove_node(name),
            ["drop", "pod", name] => self.scheduler.forget_pod(&self.name(name), &format!("uid-{name}"), self.now),
            ["budget", name, rest @ ..] => {
                let object = json!({"metadata": {"name": name, "namespace": "default"},
                    "spec": {"selector": {"matchLabels": labels(rest)}},
                    "status": {"currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
                        "disruptionsAllowed": one(rest, "allowed").unwrap().parse::<i32>().unwrap()}});
                self.learn(serde_json::from_value::<PodDisruptionBudget>(object).unwrap());
            }
            ["claim", name, mode] => {
                let object =
                    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"accessModes": [mode]}});
                self.learn(serde_json::from_value::<PersistentVolumeClaim>(object).unwrap());
            }
            ["fail", name] => self.scheduler.failed(&self.name(name), self.now),
            ["done", name] => {
                let mut pod = self.pod_named(name);
                pod.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
                self.add_pod(pod);
            }
            ["wait", time] => {
                let seconds = time.strip_suffix('s').unwrap().parse().unwrap();
                self.now = self.now.checked_add(Duration::from_secs(seconds)).unwrap();
            }
            ["run"] => self.run(),
            _ => panic!("{line}"),
        }
    }

    fn run(&mut self) {
        let mut decided = false;
        while let Some((name, outcome)) = self.scheduler.decide(self.now, 0) {
            decided = true;
            let line = match outcome.effects.as_slice() {
                [Effect::Post { object, .. }] => {
                    let node = object["target"]["name"].as_str().unwrap().to_owned();
                    let mut bound = self.pod_named(&name.name);
                    bound.spec.as_mut().unwrap().node_name = Some(node.clone());
                    self.pods.retain(|p| p.metadata.name != bound.metadata.name);
                    self.pods.push(bound);
                    format!("{} -> {node}", name.name)
                }
                [Effect::Event(notice), rest @ ..] => format!("{}: {}{}", name.name, notice.message, evicted(rest)),
                other => panic!("{other:?}"),
            };
            self.scheduler.done(&name);
            self.output.push_str(&line);
            self.output.push('\n');
        }
        if !decided {
            self.output.push_str("nothing to do\n");
        }
    }
}
