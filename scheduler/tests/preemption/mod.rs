//! Who has to leave for whom, and what is said about it.

use expect_test::{Expect, expect};

use crate::story::{Story, node, play, pod};

fn check(story: &str, expected: Expect) {
    expected.assert_eq(&play(story));
}

#[test]
fn the_least_important_leave_and_the_pod_comes_when_they_are_gone() {
    check(
        "node a cpu=3 memory=4Gi
         pod old cpu=1 priority=1 on=a started=100
         pod young cpu=1 priority=1 on=a started=200
         pod better cpu=1 priority=2 on=a started=300
         pod high cpu=1 priority=9
         run
         run
         pod other cpu=1 priority=3
         run
         drop pod young
         wait 10s
         run",
        expect![[r#"
            high: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
              expects high on "a"
              evicts young
            nothing to do
            other: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 2 victims
              expects other on "a"
              evicts old
            high -> a
            other: 0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node.
        "#]],
    );
}

#[test]
fn who_may_not_and_whom_it_would_not_help() {
    check(
        "node a cpu=2 memory=4Gi
         node b cpu=2 memory=4Gi taint=key=value:NoSchedule
         pod low cpu=2 priority=1 on=a
         pod equal cpu=1 priority=1
         pod meek cpu=1 priority=9 never
         pod huge cpu=3 priority=9
         run",
        expect![[r#"
            huge: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
            meek: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: not eligible due to preemptionPolicy=Never.
            equal: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.
        "#]],
    );
}

#[test]
fn budgets_are_kept_where_it_can_be_helped() {
    check(
        "node a cpu=1 memory=4Gi
         node b cpu=1 memory=4Gi
         node c cpu=1 memory=4Gi
         pod kept cpu=1 priority=1 app=web on=a
         pod free cpu=1 priority=2 on=b
         pod high cpu=1 priority=3 on=c
         budget web app=web allowed=0
         pod first cpu=1 priority=9
         run
         pod second cpu=1 priority=9
         run
         pod third cpu=1 priority=9
         run",
        expect![[r#"
            first: 0/3 nodes are available: 3 Insufficient cpu. preemption: found a potential placement for pod on node b, preempting 1 victims
              expects first on "b"
              evicts free
            second: 0/3 nodes are available: 3 Insufficient cpu. preemption: found a potential placement for pod on node c, preempting 1 victims
              expects second on "c"
              evicts high
            third: 0/3 nodes are available: 3 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
              expects third on "a"
              evicts kept
        "#]],
    );
}

/// Of a node's pods those that a budget keeps are spared first.
#[test]
fn kept_pods_are_spared_first() {
    check(
        "node a cpu=2 memory=4Gi
         pod kept cpu=1 priority=1 app=web on=a
         pod free cpu=1 priority=5 on=a
         budget web app=web allowed=0
         pod high cpu=1 priority=9
         run",
        expect![[r#"
            high: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
              expects high on "a"
              evicts free
        "#]],
    );
}

/// Lowest highest priority, then the sum, then the count, then the shortest run.
#[test]
fn where_least_is_lost() {
    check(
        "node a cpu=2 memory=4Gi
         node b cpu=2 memory=4Gi
         pod a1 cpu=2 priority=5 on=a
         pod b1 cpu=1 priority=4 on=b
         pod b2 cpu=1 priority=4 on=b
         pod high cpu=2 priority=9
         run",
        expect![[r#"
            high: 0/2 nodes are available: 2 Insufficient cpu. preemption: found a potential placement for pod on node b, preempting 2 victims
              expects high on "b"
              evicts b1
              evicts b2
        "#]],
    );
    check(
        "node a cpu=2 memory=4Gi
         node b cpu=2 memory=4Gi
         node c cpu=2 memory=4Gi
         pod a1 cpu=2 priority=5 on=a started=10
         pod b1 cpu=2 priority=5 on=b started=20
         pod c1 cpu=1 priority=5 on=c started=30
         pod c2 cpu=1 priority=5 on=c started=30
         pod high cpu=2 priority=9
         run",
        expect![[r#"
            high: 0/3 nodes are available: 3 Insufficient cpu. preemption: found a potential placement for pod on node b, preempting 1 victims
              expects high on "b"
              evicts b1
        "#]],
    );
}

/// A pod that waits for room keeps it from others as important as itself, not from more important ones, which in turn
/// make it look elsewhere.
#[test]
fn expected_pods_hold_their_room() {
    check(
        "node a cpu=2 memory=4Gi
         pod leaving cpu=1 priority=1 on=a
         pod waits cpu=2 priority=5 nominated=a
         pod equal cpu=1 priority=5
         run
         pod higher cpu=2 priority=7
         run",
        expect![[r#"
            equal: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.
            waits: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
              evicts leaving
            higher: 0/1 nodes are available: 1 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
              expects higher on "a"
              expects waits on null
            waits: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.
              expects waits on null
        "#]],
    );
}

#[test]
fn required_anti_affinity_evicts_whom_it_is_about() {
    check(
        "node a cpu=8 memory=8Gi zone=z1
         node b cpu=8 memory=8Gi zone=z1
         pod noisy app=noisy priority=1 on=a
         pod quiet app=quiet priority=1 on=a
         pod shy priority=9 far=zone/app=noisy
         run",
        expect![[r#"
            shy: 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. preemption: found a potential placement for pod on node a, preempting 1 victims
              expects shy on "a"
              evicts noisy
        "#]],
    );
}

#[test]
fn a_claim_for_one_pod_alone_is_waited_for_or_taken() {
    check(
        "node a cpu=8 memory=8Gi
         claim c ReadWriteOncePod
         claim d ReadWriteMany
         pod user priority=5 claim=c claim=d on=a
         pod equal priority=5 claim=c
         pod shares priority=5 claim=d
         run
         drop pod user
         run
         pod high priority=9 claim=c
         run",
        expect![[r#"
            equal: 0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
            shares -> a
            equal -> a
            high: 0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod. preemption: found a potential placement for pod on node a, preempting 1 victims
              expects high on "a"
              evicts equal
        "#]],
    );
}

/// What could not be done is as if it had not been decided.
#[test]
fn a_failed_eviction_is_taken_back() {
    let mut story = Story::new();
    story.scheduler.set_node(&node("a", &["cpu=1"]), story.now);
    story.add_pod(pod("low", &["cpu=1", "priority=1", "on=a"]));
    story.add_pod(pod("high", &["cpu=1", "priority=9"]));
    let mut evictions = || {
        let (name, outcome) = story.scheduler.decide(story.now, 0).unwrap();
        story.scheduler.failed(&name, story.now);
        story.now = story.now.checked_add(std::time::Duration::from_secs(10)).unwrap();
        outcome.effects.iter().filter(|e| matches!(e, reconcile::Effect::Delete { .. })).count()
    };
    assert_eq!((evictions(), evictions()), (1, 1));
}
