//! Where pods go and why not elsewhere.

use expect_test::{Expect, expect};

use crate::story::{Story, node, play, pod};

fn check(story: &str, expected: Expect) {
    expected.assert_eq(&play(story));
}

#[test]
fn no_nodes() {
    check(
        "pod p
         run",
        expect![[r#"
            p: no nodes available to schedule pods
        "#]],
    );
}

#[test]
fn resources() {
    check(
        "node a cpu=2 memory=4Gi
         node b cpu=4 memory=1Gi
         node c cpu=4 memory=4Gi taint=dedicated=db:NoSchedule
         pod fits cpu=1 memory=512Mi
         pod big cpu=3 memory=2Gi
         pod gpu gpu=1
         run",
        expect![[r#"
            big: 0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
            fits -> a
            gpu: 0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient example.com/gpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
        "#]],
    );
}

#[test]
fn pods_and_ports() {
    check(
        "node a cpu=4 memory=4Gi pods=1
         node b cpu=4 memory=4Gi
         pod x port=80
         pod y port=80
         pod z port=80
         run
         drop pod y
         wait 1s
         run",
        expect![[r#"
            x -> a
            y -> b
            z: 0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
            z -> b
        "#]],
    );
}

#[test]
fn taints_and_cordon() {
    check(
        "node a cpu=4 memory=4Gi taint=key=value:NoSchedule
         node b cpu=4 memory=4Gi cordoned
         node c cpu=4 memory=4Gi taint=other:NoExecute
         pod plain
         pod tolerant tolerates=key=value
         pod careless tolerates=key=wrong
         pod anywhere tolerates=node.kubernetes.io/unschedulable
         run",
        expect![[r#"
            anywhere -> b
            careless: 0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
            plain: 0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
            tolerant -> a
        "#]],
    );
}

#[test]
fn soft_taints_and_preferences() {
    check(
        "node a cpu=4 memory=4Gi zone=z1 taint=key=value:PreferNoSchedule
         node b cpu=4 memory=4Gi zone=z2
         node c cpu=4 memory=4Gi zone=z3
         pod p prefers=zone=z3
         pod q prefers=zone=z1
         pod r uses zone=z2
         pod s uses zone=z9
         run",
        expect![[r#"
            p -> c
            q -> b
            r -> b
            s: 0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
        "#]],
    );
}

#[test]
fn least_allocated_and_balanced() {
    check(
        "node a cpu=4 memory=8Gi
         node b cpu=4 memory=8Gi
         pod x cpu=2 memory=1Gi on=a
         pod y cpu=1 memory=1Gi
         pod z cpu=1 memory=6Gi
         run",
        expect![[r#"
            y -> b
            z -> b
        "#]],
    );
}

#[test]
fn spread_hard() {
    check(
        "node a cpu=8 memory=8Gi zone=z1
         node b cpu=8 memory=8Gi zone=z2
         node c cpu=8 memory=8Gi
         pod w1 app=web spread=zone/1/app=web
         pod w2 app=web spread=zone/1/app=web
         pod w3 app=web spread=zone/1/app=web
         run
         node b cpu=8 memory=8Gi zone=z2 cordoned
         pod w4 app=web spread=zone/1/app=web
         pod w5 app=web spread=zone/1/app=web
         pod w6 app=web spread=zone/1/app=web
         run",
        expect![[r#"
            w1 -> a
            w2 -> b
            w3 -> a
            w4: 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label), 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.
            w5: 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label), 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.
            w6: 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label), 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.
        "#]],
    );
}

#[test]
fn spread_soft_and_by_default() {
    check(
        "node a cpu=80 memory=80Gi zone=z1
         node b cpu=8 memory=8Gi zone=z2
         pod w1 app=web cpu=1 spread=zone/1~/app=web
         pod w2 app=web cpu=1 spread=zone/1~/app=web
         pod w3 app=web cpu=1 spread=zone/1~/app=web
         run
         pod r1 of=rs
         pod r2 of=rs
         pod r3 of=rs
         pod r4 of=rs
         run",
        expect![[r#"
            w1 -> a
            w2 -> b
            w3 -> a
            r1 -> a
            r2 -> b
            r3 -> a
            r4 -> b
        "#]],
    );
}

#[test]
fn near_and_far() {
    check(
        "node a cpu=8 memory=8Gi zone=z1
         node b cpu=8 memory=8Gi zone=z1
         node c cpu=8 memory=8Gi zone=z2
         pod friend app=web near=zone/app=cache
         pod c1 app=cache far=zone/app=cache uses zone=z2
         pod c2 app=cache far=zone/app=cache
         pod c3 app=cache far=zone/app=cache
         run
         wait 10s
         run
         pod first app=group near=zone/app=group
         run",
        expect![[r#"
            c1 -> c
            c2 -> a
            c3: 0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.
            friend -> b
            nothing to do
            first -> a
        "#]],
    );
}

#[test]
fn daemons_go_where_they_name() {
    let named = serde_json::json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}});
    let mut story = Story::new();
    for (name, words) in [("a", &["cpu=1"] as &[&str]), ("b", &["cpu=1"]), ("c", &["cpu=1", "cordoned"])] {
        story.scheduler.set_node(&node(name, words), story.now);
    }
    let mut daemon = pod("d", &["cpu=1"]);
    daemon.spec.as_mut().unwrap().affinity = serde_json::from_value(named).unwrap();
    let verdict = |story: &Story| format!("{:?}", story.scheduler.dry_run(&daemon, 0).verdict);
    expect![[r#"Place(Placement { node: "b", score: 0, equals: 1 })"#]].assert_eq(&verdict(&story));
    story.add_pod(pod("x", &["cpu=1", "on=b"]));
    expect![[r#"Unschedulable { message: "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.", preemption: Hopeless }"#]].assert_eq(&verdict(&story));
}
