//! How many pods a second find a place on 5,000 nodes. Prints a line `KIND DECISIONS_A_SECOND` for each kind of pod.
//! `cargo xtask bench P12` is the way to call it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../tests/story/mod.rs"]
mod story;

use std::time::Instant;

use story::{Story, node, pod};

const NODES: usize = 5000;
const PODS: usize = 2000;

/// Kinds of pods, in the words of a story.
const KINDS: &[(&str, &[&str])] = &[
    ("plain", &["cpu=100m", "memory=200Mi"]),
    ("of-one-set", &["cpu=100m", "memory=200Mi", "of=rs"]),
    ("spread", &["cpu=100m", "memory=200Mi", "app=web", "spread=zone/1/app=web"]),
    ("anti-affinity", &["cpu=100m", "app=web", "far=kubernetes.io/hostname/app=web"]),
];

fn main() {
    for (kind, words) in KINDS {
        println!("{kind} {:.0}", rate(words));
    }
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
