//! Whatever happens in whatever order, no node is given more than it has, and the columns are what the pods add up to.

use std::collections::BTreeMap;
use std::time::Duration;

use api::ObjectName;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use reconcile::Effect;

use crate::story::{Story, node, pod};

#[derive(Clone, Debug)]
enum Step {
    Node {
        name: u8,
        cpu: u8,
        gpu: u8,
    },
    DropNode(u8),
    Pod {
        name: u8,
        cpu: u8,
        gpu: u8,
        port: bool,
        apart: bool,
        priority: u8,
    },
    DropPod(u8),
    Finish(u8),
    /// Decides for so many pods; the bits say whose binding fails at once, whose comes back, and whose is late.
    Decide {
        count: u8,
        fate: u16,
    },
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..4u8, 1..6u8, 0..3u8).prop_map(|(name, cpu, gpu)| Step::Node { name, cpu, gpu }),
        1 => (0..4u8).prop_map(Step::DropNode),
        6 => (0..20u8, 0..4u8, 0..2u8, any::<bool>(), any::<bool>(), 0..3u8)
            .prop_map(|(name, cpu, gpu, port, apart, priority)| Step::Pod { name, cpu, gpu, port, apart, priority }),
        2 => (0..20u8).prop_map(Step::DropPod),
        1 => (0..20u8).prop_map(Step::Finish),
        6 => (1..8u8, any::<u16>()).prop_map(|(count, fate)| Step::Decide { count, fate }),
        1 => (1..20u8).prop_map(Step::Wait),
    ]
}

#[derive(Default)]
struct Cluster {
    nodes: BTreeMap<String, (i64, i64)>,
    pods: BTreeMap<String, Pod>,
    late: Vec<Pod>,
    generation: u32,
}

impl Cluster {
    fn play(&mut self, story: &mut Story, step: &Step, trace: &mut Vec<String>) {
        match step {
            Step::Node { name, cpu, gpu } => self.set_node(story, *name, *cpu, *gpu),
            Step::DropNode(name) => {
                // Pods on a node that is gone are gone too, as the pod collector sees to.
                let name = format!("n{name}");
                self.nodes.remove(&name);
                story.scheduler.remove_node(&name);
                let on = |p: &Pod| p.spec.as_ref().unwrap().node_name.as_deref() == Some(name.as_str());
                let gone: Vec<String> = self.pods.iter().filter(|(_, p)| on(p)).map(|(n, _)| n.clone()).collect();
                gone.iter().for_each(|n| self.drop_pod(story, n));
            }
            Step::Pod { .. } => self.add(story, step),
            Step::DropPod(name) => self.drop_pod(story, &format!("p{name}")),
            Step::Finish(name) => self.finish(story, &format!("p{name}")),
            Step::Decide { count, fate } => self.decide(story, *count, *fate, trace),
            Step::Wait(seconds) => {
                story.now = story.now.checked_add(Duration::from_secs((*seconds).into())).unwrap();
                for pod in std::mem::take(&mut self.late) {
                    self.come_back(story, &pod);
                }
            }
        }
    }

    /// Nodes only grow: one that shrinks below what runs on it is overcommitted by its owner.
    fn set_node(&mut self, story: &mut Story, name: u8, cpu: u8, gpu: u8) {
        let name = format!("n{name}");
        let has = self.nodes.entry(name.clone()).or_default();
        *has = (has.0.max(cpu.into()), has.1.max(gpu.into()));
        let words = [format!("cpu={}", has.0), format!("gpu={}", has.1), "memory=1Gi".to_owned(), "pods=4".to_owned()];
        story.scheduler.set_node(&node(&name, &words.each_ref().map(String::as_str)), story.now);
    }

    fn add(&mut self, story: &mut Story, step: &Step) {
        let Step::Pod { name, cpu, gpu, port, apart, priority } = step else { return };
        let name = format!("p{name}");
        if self.pods.contains_key(&name) {
            return;
        }
        let mut words = vec![format!("cpu={cpu}"), format!("gpu={gpu}"), format!("priority={priority}")];
        words.extend(port.then(|| "port=80".to_owned()));
        words.extend(apart.then(|| "app=apart".to_owned()));
        words.extend(apart.then(|| "far=kubernetes.io/hostname/app=apart".to_owned()));
        let mut new = pod(&name, &words.iter().map(String::as_str).collect::<Vec<_>>());
        self.generation += 1;
        new.metadata.uid = Some(format!("uid-{name}-{}", self.generation));
        story.scheduler.set_pod(&new, story.now);
        self.pods.insert(name, new);
    }

    fn drop_pod(&mut self, story: &mut Story, name: &str) {
        let Some(pod) = self.pods.remove(name) else { return };
        let uid = pod.metadata.uid.unwrap();
        self.late.retain(|p| p.metadata.uid.as_ref() != Some(&uid));
        story.scheduler.forget_pod(&object(name), &uid, story.now);
    }

    fn finish(&mut self, story: &mut Story, name: &str) {
        let Some(pod) = self.pods.get_mut(name) else { return };
        if pod.spec.as_ref().unwrap().node_name.as_deref().is_some_and(|n| !n.is_empty()) {
            pod.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
            let uid = pod.metadata.uid.clone();
            story.scheduler.set_pod(pod, story.now);
            self.late.retain(|p| p.metadata.uid != uid);
        }
    }

    fn decide(&mut self, story: &mut Story, count: u8, fate: u16, trace: &mut Vec<String>) {
        for i in 0..count {
            let Some((name, outcome)) = story.scheduler.decide(story.now, fate.into()) else { return };
            trace.push(format!("{name} {:?}", outcome.reasons));
            self.evict(story, &name, &outcome.effects, fate & 1 == 1);
            let Some(Effect::Post { object, .. }) = outcome.effects.first() else { continue };
            let node = object["target"]["name"].as_str().unwrap().to_owned();
            let pod = self.pods.get_mut(&name.name).unwrap();
            match fate >> (2 * i) & 3 {
                0 => story.scheduler.failed(&name, story.now),
                late => {
                    pod.spec.as_mut().unwrap().node_name = Some(node);
                    let bound = pod.clone();
                    if late == 1 { self.late.push(bound) } else { self.come_back(story, &bound) }
                }
            }
        }
    }

    /// Those who make room for others leave at once, or stay because the API server did not answer.
    fn evict(&mut self, story: &mut Story, preemptor: &ObjectName, effects: &[Effect], works: bool) {
        let victim =
            |e: &Effect| if let Effect::Delete { target, .. } = e { Some(target.object.clone()) } else { None };
        let victims: Vec<ObjectName> = effects.iter().filter_map(victim).collect();
        if victims.is_empty() {
            return;
        }
        let important = self.pods[&preemptor.name].spec.as_ref().unwrap().priority;
        for victim in &victims {
            assert!(self.pods[&victim.name].spec.as_ref().unwrap().priority < important, "{victim} leaves for less");
        }
        match works {
            true => victims.iter().for_each(|victim| self.drop_pod(story, &victim.name)),
            false => story.scheduler.failed(preemptor, story.now),
        }
        story.scheduler.done(preemptor);
    }

    fn come_back(&mut self, story: &mut Story, pod: &Pod) {
        story.scheduler.set_pod(pod, story.now);
    }

    fn check(&self, story: &Story) {
        let snapshot = story.scheduler.snapshot();
        for at in 0..snapshot.len() {
            let pods: Vec<_> = snapshot.pods_on(at).collect();
            let cpu: i64 = pods.iter().map(|p| p.requested.cpu_milli).sum();
            let gpu: i64 = pods.iter().map(|p| p.requested.others.get("example.com/gpu").copied().unwrap_or(0)).sum();
            let gpus = &snapshot.others["example.com/gpu"];
            assert_eq!((snapshot.cpu.used(at), gpus.used(at)), (cpu, gpu), "columns are not what pods add up to");
            assert_eq!(snapshot.pods.used(at), pods.len() as i64);
            assert!(snapshot.cpu.free(at) >= 0 && gpus.free(at) >= 0 && snapshot.pods.free(at) >= 0, "overcommitted");
            assert!(pods.iter().filter(|p| !p.ports.is_empty()).count() <= 1, "a port is given twice");
            let apart = pods.iter().filter(|p| p.labels.get("app").is_some_and(|v| v == "apart")).count();
            assert!(apart <= 1, "pods that keep apart are together");
            let name = &snapshot.node(at).unwrap().name;
            let scored: i64 = pods.iter().map(|p| p.scored_cpu_milli).sum();
            assert_eq!(snapshot.scored_cpu[at], scored, "{name}");
        }
        let unfinished = |p: &&Pod| p.status.is_none();
        let bound = |p: &&Pod| p.spec.as_ref().unwrap().node_name.as_deref().is_some_and(|n| !n.is_empty());
        for pod in self.pods.values().filter(unfinished).filter(bound) {
            let uid = pod.metadata.uid.as_deref().unwrap();
            assert_eq!(snapshot.place_of(uid), pod.spec.as_ref().unwrap().node_name.as_deref(), "a pod is forgotten");
        }
    }
}

fn object(name: &str) -> ObjectName {
    ObjectName { namespace: "default".to_owned(), name: name.to_owned() }
}

fn run(steps: &[Step]) -> Vec<String> {
    let (mut story, mut cluster, mut trace) = (Story::new(), Cluster::default(), Vec::new());
    for step in steps {
        cluster.play(&mut story, step, &mut trace);
        cluster.check(&story);
    }
    trace
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_node_is_overcommitted_and_the_seed_decides_all(steps in proptest::collection::vec(step(), 1..120)) {
        prop_assert_eq!(run(&steps), run(&steps));
    }
}
