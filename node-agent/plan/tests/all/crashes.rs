//! The agent is killed at every step of a pod's life, before and after the step has had its effect. The next agent must
//! bring the pod to the same end: the same starts and ends of containers in the same order, and the same status.

use serde_json::{Value, json};

use crate::pod;
use crate::story::Story;

fn live(spec: &Value, script: fn(&mut Story), crash: Option<(usize, bool)>) -> Story {
    let mut story = Story::new(pod(spec.clone()));
    // Beyond any step: the same way of performing, without a crash.
    story.crash = crash.or(Some((usize::MAX, false)));
    script(&mut story);
    story
}

fn check(spec: &Value, script: fn(&mut Story)) {
    let calm = live(spec, script, None);
    assert!(calm.steps > 5, "{}", calm.log);
    for step in 1..=calm.steps {
        for done in [false, true] {
            let story = live(spec, script, Some((step, done)));
            assert!(story.log.contains("the agent is killed"), "step {step}");
            let (found, wanted) = (ordered(&story.node.log), ordered(&calm.node.log));
            assert_eq!(found, wanted, "killed at step {step}, done {done}:\n{}", story.log);
            assert_eq!(story.summary(), calm.summary(), "killed at step {step}, done {done}:\n{}", story.log);
        }
    }
}

/// Main containers start and end beside each other: what happens to them between other things is sorted by name, so
/// that only the order within each counts.
fn ordered(log: &str) -> Vec<&str> {
    let name = |line: &str| ["web", "log"].into_iter().find(|name| line.starts_with(name));
    let mut lines: Vec<&str> = log.lines().collect();
    for beside in lines.chunk_by_mut(|a, b| name(a).is_some() && name(b).is_some()) {
        beside.sort_by_key(|line| name(line));
    }
    lines
}

fn with_everything(policy: &str) -> Value {
    json!({
        "restartPolicy": policy,
        "shareProcessNamespace": true,
        "initContainers": [
            {"name": "one"},
            {"name": "s1", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1}},
            {"name": "two"},
            {"name": "s2", "restartPolicy": "Always"},
        ],
        "containers": [
            {"name": "web", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}, "postStart": {"exec": {"command": ["x"]}}}},
            {"name": "log"},
        ],
    })
}

fn to_running(story: &mut Story) {
    story.settle();
    story.exit("one", 0);
    story.pass(1);
    story.exit("two", 0);
    story.pass(1);
}

#[test]
fn a_pod_that_is_deleted() {
    check(&with_everything("Always"), |story| {
        to_running(story);
        story.delete(30);
        story.pass(60);
    });
}

#[test]
fn a_pod_that_is_deleted_half_way() {
    check(&with_everything("Always"), |story| {
        story.settle();
        story.exit("one", 0);
        story.delete(30);
        story.pass(60);
    });
}

#[test]
fn a_pod_that_is_deaf_to_signals() {
    check(&with_everything("Always"), |story| {
        story.deaf = true;
        to_running(story);
        story.delete(10);
        story.pass(60);
    });
}

#[test]
fn a_pod_that_completes_and_one_that_fails() {
    check(&with_everything("Never"), |story| {
        to_running(story);
        story.exit("web", 0);
        story.exit("log", 0);
        story.pass(60);
    });
    check(&with_everything("Never"), |story| {
        story.settle();
        story.exit("one", 3);
        story.pass(60);
    });
}

#[test]
fn a_pod_whose_containers_are_started_again() {
    check(&with_everything("OnFailure"), |story| {
        story.settle();
        story.exit("one", 1);
        story.pass(5);
        story.exit("one", 0);
        story.pass(1);
        story.exit("two", 0);
        story.pass(1);
        story.exit("web", 1);
        story.pass(5);
        story.exit("web", 1);
        story.pass(15);
        story.exit("s1", 1);
        story.pass(15);
    });
}
