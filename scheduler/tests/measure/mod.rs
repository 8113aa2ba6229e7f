//! Figures, not checks: `cargo test -p scheduler --release measure -- --ignored --nocapture`.

use std::time::Instant;

use crate::story::{Story, node, pod};

fn fill(what: &str, words: &[&str]) {
    let mut story = Story::new();
    for i in 0..5000 {
        let zone = format!("zone=z{}", i % 3);
        story.scheduler.set_node(&node(&format!("n{i}"), &["cpu=32", "memory=64Gi", &zone]), story.now);
    }
    let pods: Vec<_> = (0..2000).map(|i| pod(&format!("p{i}"), words)).collect();
    pods.iter().for_each(|p| story.scheduler.set_pod(p, story.now));
    let start = Instant::now();
    let mut seed = 1;
    let placed = std::iter::from_fn(|| {
        seed += 1;
        story.scheduler.decide(story.now, seed)
    });
    let placed = placed.filter(|(_, o)| o.effects.len() == 1).count();
    println!("{what}: {placed} pods on 5000 nodes, {:.0} decisions/s", 2000.0 / start.elapsed().as_secs_f64());
}

#[test]
#[ignore = "a figure, not a check"]
fn five_thousand_nodes() {
    fill("plain", &["cpu=100m", "memory=200Mi"]);
    fill("of one ReplicaSet", &["cpu=100m", "memory=200Mi", "of=rs"]);
    fill("spread over zones", &["cpu=100m", "memory=200Mi", "app=web", "spread=zone/1/app=web"]);
    fill("anti-affinity", &["cpu=100m", "app=web", "far=kubernetes.io/hostname/app=web"]);
}
