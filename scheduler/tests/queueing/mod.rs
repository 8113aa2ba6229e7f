//! Who is tried when.

use expect_test::{Expect, expect};

use crate::story::{Story, node, play, pod};

fn check(story: &str, expected: Expect) {
    expected.assert_eq(&play(story));
}

#[test]
fn higher_priority_first() {
    check(
        "node a cpu=2 memory=4Gi
         pod low cpu=1 priority=1
         pod high cpu=1 priority=10
         pod middle cpu=1 priority=5
         run",
        expect![[r#"
            high -> a
            middle -> a
            low: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        "#]],
    );
}

#[test]
fn woken_by_what_can_help() {
    check(
        "node a cpu=1 memory=4Gi
         pod running cpu=1 on=a
         pod p cpu=1
         run
         # A node that is too small, a cordoned one and a pod that joins do not help.
         node b cpu=500m memory=4Gi
         pod other on=b cpu=100m
         run
         drop pod running
         run",
        expect![[r#"
            p: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
            nothing to do
            p -> a
        "#]],
    );
}

#[test]
fn a_node_helps_whom_nothing_helped() {
    check(
        "pod p
         run
         run
         node a cpu=1 memory=1Gi
         run",
        expect![[r#"
            p: no nodes available to schedule pods
            nothing to do
            p -> a
        "#]],
    );
}

#[test]
fn a_failed_binding_gives_its_room_back_and_backs_off() {
    check(
        "node a cpu=1 memory=4Gi
         pod p cpu=1
         pod q cpu=1
         run
         fail p
         run
         drop pod q
         wait 1s
         run",
        expect![[r#"
            p -> a
            q: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
            q -> a
            p -> a
        "#]],
    );
}

#[test]
fn gates_hold_and_finished_pods_make_room() {
    check(
        "node a cpu=1 memory=4Gi
         pod g cpu=1 gated
         pod p cpu=1
         run
         pod g cpu=1
         run
         done p
         wait 1s
         run",
        expect![[r#"
            p -> a
            g: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
            g -> a
        "#]],
    );
}

#[test]
fn tried_again_after_five_minutes() {
    check(
        "node a cpu=1 memory=4Gi
         pod p cpu=2
         run
         wait 299s
         run
         wait 1s
         run",
        expect![[r#"
            p: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
            nothing to do
            p: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
        "#]],
    );
}

/// The condition is written when it says something new; the Event every time.
#[test]
fn conditions_are_written_once() {
    let mut story = Story::new();
    story.scheduler.set_node(&node("a", &["cpu=1"]), story.now);
    let mut waiting = pod("p", &["cpu=2"]);
    story.add_pod(waiting.clone());
    let (_, outcome) = story.scheduler.decide(story.now, 0).unwrap();
    let [reconcile::Effect::Event(_), reconcile::Effect::Patch { body, .. }] = outcome.effects.as_slice() else {
        panic!("{outcome:?}")
    };
    expect![[r#"{"metadata":{"uid":"uid-p"},"status":{"conditions":[{"lastProbeTime":null,"lastTransitionTime":"1970-01-12T13:46:40Z","message":"0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.","reason":"Unschedulable","status":"False","type":"PodScheduled"}]}}"#]].assert_eq(&body.to_string());

    waiting.status = serde_json::from_value(body["status"].clone()).unwrap();
    story.add_pod(waiting);
    story.now = story.now.checked_add(std::time::Duration::from_secs(400)).unwrap();
    let (_, outcome) = story.scheduler.decide(story.now, 0).unwrap();
    assert!(matches!(outcome.effects.as_slice(), [reconcile::Effect::Event(_)]), "{outcome:?}");
}
