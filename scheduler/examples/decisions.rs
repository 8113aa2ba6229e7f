//! How many pods a second find a place on 5,000 nodes: `decisions P12` for plain ones, `decisions P13` for those that
//! say something about other pods or have to make room. Prints a line `KIND DECISIONS_A_SECOND` for each kind of pod.
//! `cargo xtask bench P12` is the way to call it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../tests/story/mod.rs"]
mod story;

use std::time::Instant;

use story::{Story, node, pod};

const NODES: usize = 5000;
const PODS: usize = 2000;
const PREEMPTORS: usize = 100;

/// Kinds of pods, in the words of a story, by the row they belong to.
const KINDS: &[(&str, &str, &[&str])] = &[
    ("P12", "plain", &["cpu=100m", "memory=200Mi"]),
    ("P12", "of-one-set", &["cpu=100m", "memory=200Mi", "of=rs"]),
    ("P13", "spread", &["cpu=100m", "memory=200Mi", "app=web", "spread=zone/1/app=web"]),
    ("P13", "spread-softly", &["cpu=100m", "memory=200Mi", "app=web", "spread=zone/1~/app=web"]),
    ("P13", "affinity", &["cpu=100m", "app=web", "near=zone/app=web"]),
    ("P13", "anti-affinity", &["cpu=100m", "app=web", "far=kubernetes.io/hostname/app=web"]),
    ("P13", "preferred-anti-affinity", &["cpu=100m", "app=web", "dislikes=kubernetes.io/hostname/10/app=web"]),
];

fn main() {
    let row = std::env::args().nth(1).expect("P12 or P13");
    for (_, kind, words) in KINDS.iter().filter(|(of, ..)| *of == row) {
        println!("{kind} {:.0}", rate(words));
    }
    if row == "P13" {
        println!("preempting {:.0}", preemptions());
    }
}

/// How many pods a second find whom to take away, where every node is full of less important ones.
fn preemptions() -> f64 {
    let mut story = Story::new();
    for i in 0..NODES {
        story.scheduler.set_node(&node(&format!("n{i}"), &["cpu=4", "memory=64Gi"]), story.now);
        for j in 0..4 {
            let (cpu, priority, on) = ("cpu=1", format!("priority={}", 1 + (i + j) % 5), format!("on=n{i}"));
            story.scheduler.set_pod(&pod(&format!("low-{i}-{j}"), &[cpu, &priority, &on]), story.now);
        }
    }
    for i in 0..PREEMPTORS {
        story.scheduler.set_pod(&pod(&format!("p{i}"), &["cpu=2", "priority=9"]), story.now);
    }
    let start = Instant::now();
    let decided = std::iter::from_fn(|| story.scheduler.decide(story.now, 7));
    let preempting = decided.take(PREEMPTORS).filter(|(_, outcome)| outcome.effects.len() > 3).count();
    assert_eq!(preempting, PREEMPTORS, "pods found nobody to take away");
    PREEMPTORS as f64 / start.elapsed().as_secs_f64()
}

fn rate(words: &[&str]) -> f64 {
    let mut story = Story::new();
    for i in 0..NODES {
        let zone = format!("zone=z{}", i % 3);
        story.scheduler.set_node(&node(&format!("n{i}"), &["cpu=32", "memory=64Gi", &zone]), story.now);
    }
    for i in 0..PODS {
        story.scheduler.set_pod(&pod(&format!("p{i}"), words), story.now);
    }
    let start = Instant::now();
    let mut seed = 1;
    let decided = std::iter::from_fn(|| {
        seed += 1;
        story.scheduler.decide(story.now, seed)
    });
    let placed = decided.filter(|(_, outcome)| outcome.effects.len() == 1).count();
    assert_eq!(placed, PODS, "pods found no place");
    PODS as f64 / start.elapsed().as_secs_f64()
}
