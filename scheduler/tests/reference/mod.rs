//! The scheduler beside one that is written from the definitions: the same nodes fit, the same are best, and preemption
//! takes nobody whose leaving is not needed.

mod naive;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod};
use naive::Cluster;
use proptest::prelude::*;
use scheduler::{Decision, Preemption, Verdict};

use crate::story::{Story, node, pod};

fn any_node() -> impl Strategy<Value = Vec<String>> {
    let zone = prop_oneof![3 => Just("zone=z1"), 3 => Just("zone=z2"), 1 => Just("tier=x")];
    let mark = prop_oneof![
        6 => Just("pods=5"),
        1 => Just("cordoned"),
        1 => Just("taint=key=value:NoSchedule"),
        2 => Just("taint=soft:PreferNoSchedule"),
    ];
    (1..6u8, 1..6u8, 0..3u8, zone, mark).prop_map(|(cpu, memory, gpu, zone, mark)| {
        let mut words = vec![format!("cpu={cpu}"), format!("memory={memory}Gi"), zone.to_owned(), mark.to_owned()];
        words.extend((gpu > 0).then(|| format!("gpu={gpu}")));
        words
    })
}

fn word() -> impl Strategy<Value = String> {
    let key = prop_oneof![Just("zone"), Just("kubernetes.io/hostname")];
    let app = prop_oneof![Just("web"), Just("db")];
    let choice = (0..14u8, key, app, 1..3u8, 0..3u8);
    choice.prop_map(|(kind, key, app, number, other)| match kind {
        0 => format!("far={key}/app={app}"),
        1 => format!("near={key}/app={app}"),
        2 | 3 => format!("spread={key}/{number}/app={app}"),
        4 | 5 => format!("spread={key}/{number}~/app={app}"),
        6 => format!("likes={key}/{}/app={app}", number * 10),
        7 => format!("dislikes={key}/{}/app={app}", number * 10),
        8 => format!("prefers=zone=z{number}"),
        9 => "tolerates=key=value".to_owned(),
        10 => "tolerates=soft".to_owned(),
        11 => format!("port={number}"),
        12 => format!("policies={}", ["affinity", "taints", "domains"][usize::from(other)]),
        _ => format!("gpu={number}"),
    })
}

fn any_pod() -> impl Strategy<Value = Vec<String>> {
    let words = proptest::collection::vec(word(), 0..4);
    let uses = prop_oneof![4 => Just(""), 1 => Just("zone=z1")];
    (0..4u8, 0..3u8, prop_oneof![Just("web"), Just("db")], 0..3u8, words, uses).prop_map(
        |(cpu, memory, app, priority, mut words, uses)| {
            words.extend([format!("app={app}"), format!("priority={priority}")]);
            words.extend((cpu > 0).then(|| format!("cpu={cpu}00m")));
            words.extend((memory > 0).then(|| format!("memory={memory}Gi")));
            words.extend((!uses.is_empty()).then(|| vec!["uses".to_owned(), uses.to_owned()]).into_iter().flatten());
            words
        },
    )
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// A scheduler that learns of everything at once.
fn fresh(cluster: &Cluster) -> Story {
    let mut story = Story::new();
    cluster.nodes.values().for_each(|n| story.scheduler.set_node(n, story.now));
    cluster.pods.values().for_each(|p| story.scheduler.set_pod(p, story.now));
    story
}

fn open(story: &Story, decision: &Decision) -> BTreeSet<String> {
    let snapshot = story.scheduler.snapshot();
    let refused: BTreeSet<usize> = decision.refused.iter().map(|(at, ..)| at).collect();
    let open = (0..snapshot.len()).filter(|at| !refused.contains(at));
    open.map(|at| snapshot.node(at).unwrap().name.to_string()).collect()
}

fn bind(cluster: &mut Cluster, pod: &Pod, node: &str) {
    let mut bound = pod.clone();
    bound.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    cluster.pods.insert(bound.metadata.name.clone().unwrap(), bound);
}

/// Decides for one pod with what was kept from the decisions before, and afresh, and compares both with the naive way.
fn one(story: &mut Story, cluster: &mut Cluster, pod: &Pod, seed: u64) {
    let kept = story.scheduler.dry_run(pod, seed);
    let anew = fresh(cluster);
    let afresh = anew.scheduler.dry_run(pod, seed);
    let feasible = cluster.feasible(pod);
    assert_eq!(open(story, &kept), feasible, "{pod:?}");
    assert_eq!(open(&anew, &afresh), feasible, "{pod:?}");
    match (&kept.verdict, &afresh.verdict) {
        (Verdict::Place(kept), Verdict::Place(afresh)) => {
            let best = cluster.best(pod, &feasible);
            assert!(
                best.contains(&*kept.node) && best.contains(&*afresh.node),
                "{} of {best:?} for {pod:?}",
                kept.node
            );
            assert_eq!((kept.equals, afresh.equals), (best.len(), best.len()), "{best:?} for {pod:?}");
        }
        (Verdict::Unschedulable { preemption, .. }, Verdict::Unschedulable { .. }) => {
            assert!(feasible.is_empty());
            preempts_what_it_must(cluster, pod, preemption);
        }
        other => panic!("{other:?}"),
    }
    story.scheduler.set_pod(pod, story.now);
    let Some((_, outcome)) = story.scheduler.decide(story.now, seed) else { panic!("{pod:?} was not decided") };
    match outcome.effects.first() {
        Some(reconcile::Effect::Post { object, .. }) => {
            bind(cluster, pod, object["target"]["name"].as_str().unwrap());
            let bound = &cluster.pods[pod.metadata.name.as_ref().unwrap()];
            story.scheduler.set_pod(bound, story.now);
        }
        _ => withdraw(story, cluster, pod),
    }
    assert!(cluster.keeps_apart(), "{pod:?} breaks anti-affinity");
}

/// Takes a pod that found no place out again, with all that was about to be done for it.
fn withdraw(story: &mut Story, cluster: &Cluster, pod: &Pod) {
    let name = reconcile::resource::name_of(&pod.metadata);
    story.scheduler.failed(&name, story.now);
    story.scheduler.forget_pod(&name, pod.metadata.uid.as_deref().unwrap(), story.now);
    let snapshot = story.scheduler.snapshot();
    let placed = (0..snapshot.len()).flat_map(|at| snapshot.pods_on(at).cloned().collect::<Vec<_>>());
    let known: BTreeSet<String> = placed.filter(|p| !p.terminating).map(|p| p.name.clone()).collect();
    assert_eq!(known, cluster.pods.keys().cloned().collect(), "trying preemption left traces");
}

fn preempts_what_it_must(cluster: &Cluster, pod: &Pod, preemption: &Preemption) {
    let Preemption::Preempts(victims) = preemption else { return };
    let lower = cluster.lower(pod);
    let mut without = cluster.clone();
    for victim in &victims.pods {
        assert!(lower.contains(&victim.name), "{} is as important as {pod:?}", victim.name);
        without.pods.remove(&victim.name);
    }
    let fits = |cluster: &Cluster| cluster.feasible(pod).contains(&*victims.node);
    assert!(fits(&without), "{pod:?} does not fit where {victims:?} left");
    // The least important victim was spared last: with all others gone, it alone is in the way.
    let last = victims.pods.last().unwrap();
    without.pods.insert(last.name.clone(), cluster.pods[&last.name].clone());
    assert!(victims.violations > 0 || !fits(&without), "{} leaves in vain for {pod:?}", last.name);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_definitions(
        nodes in proptest::collection::vec(any_node(), 1..7),
        pods in proptest::collection::vec((any_pod(), any::<u64>()), 1..24),
        leaves in proptest::collection::vec(0..24usize, 0..6),
    ) {
        let (mut story, mut cluster) = (Story::new(), Cluster::default());
        for (i, words) in nodes.iter().enumerate() {
            let node: Node = node(&format!("n{i}"), &strs(words));
            story.scheduler.set_node(&node, story.now);
            cluster.nodes.insert(format!("n{i}"), node);
        }
        for (i, (words, seed)) in pods.iter().enumerate() {
            one(&mut story, &mut cluster, &pod(&format!("p{i}"), &strs(words)), *seed);
            for gone in leaves.iter().filter(|at| **at + 6 == i) {
                let name = format!("p{gone}");
                if let Some(pod) = cluster.pods.remove(&name) {
                    let object = reconcile::resource::name_of(&pod.metadata);
                    story.scheduler.forget_pod(&object, pod.metadata.uid.as_deref().unwrap(), story.now);
                }
            }
        }
    }
}
