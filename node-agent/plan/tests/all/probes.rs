//! Start-up, liveness and readiness probes.

use expect_test::{Expect, expect};
use serde_json::json;

use crate::pod;
use crate::story::Story;

fn check(story: &Story, expected: Expect) {
    expected.assert_eq(&format!("{}{}", story.log, story.summary()));
}

#[test]
fn readiness_follows_its_probe() {
    let probe =
        json!({"exec": {"command": ["x"]}, "initialDelaySeconds": 2, "periodSeconds": 5, "failureThreshold": 2});
    let mut story = Story::new(pod(json!({"containers": [{"name": "web", "readinessProbe": probe}]}))).running();
    story.pass(1);
    let before = story.summary();
    story.pass(2);
    let ready = story.summary();
    story.probes.insert("readiness", false);
    story.pass(5);
    let once = story.summary();
    story.pass(5);
    story.log.push_str(&format!("{before}{ready}{once}"));
    check(
        &story,
        expect![[r#"
           2s Readiness probe of web-0
           7s Readiness probe of web-0
           7s   event Unhealthy: Readiness probe failed: no
          12s Readiness probe of web-0
          12s   event Unhealthy: Readiness probe failed: no
        Running; web: running restarts=0
          not Ready: ContainersNotReady containers with unready status: [web]
          not ContainersReady: ContainersNotReady containers with unready status: [web]
        Running; web: running ready restarts=0
        Running; web: running ready restarts=0
        Running; web: running restarts=0
          not Ready: ContainersNotReady containers with unready status: [web]
          not ContainersReady: ContainersNotReady containers with unready status: [web]
    "#]],
    );
}

#[test]
fn a_failed_liveness_probe_restarts_the_container() {
    let probe = json!({"exec": {"command": ["x"]}, "periodSeconds": 1, "failureThreshold": 2});
    let mut story = Story::new(pod(json!({"containers": [{"name": "web", "livenessProbe": probe}]}))).running();
    story.probes.insert("liveness", false);
    story.pass(2);
    check(
        &story,
        expect![[r#"
           1s Liveness probe of web-0
           1s   event Unhealthy: Liveness probe failed: no
           2s Liveness probe of web-0
           2s   event Unhealthy: Liveness probe failed: no
           2s stop web-0
           2s   event Killing: Container web failed liveness probe, will be restarted
           2s signal 15 to web-0
           2s find the image of web
           2s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           2s remove web-0
           2s start web-1
           2s   event Created: Container created
           2s   event Started: Container started
           2s Liveness probe of web-1
           2s   event Unhealthy: Liveness probe failed: no
        Running; web: running ready restarts=1
    "#]],
    );
}

#[test]
fn other_probes_wait_for_the_start_up_probe() {
    let probe = |n: i32| json!({"exec": {"command": ["x"]}, "periodSeconds": n, "failureThreshold": 3});
    let container =
        json!({"name": "web", "startupProbe": probe(2), "livenessProbe": probe(1), "readinessProbe": probe(1)});
    let mut story = Story::new(pod(json!({"containers": [container]})));
    story.probes.insert("startup", false);
    story.settle();
    story.pass(1);
    story.probes.insert("startup", true);
    story.pass(2);
    check(
        &story,
        expect![[r#"
           0s attach the network
           0s mount volumes
           0s start the sandbox
           0s find the image of web
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s start web-0
           0s   event Created: Container created
           0s   event Started: Container started
           0s Startup probe of web-0
           0s   event Unhealthy: Startup probe failed: no
           2s Startup probe of web-0
           2s Liveness probe of web-0
           2s Readiness probe of web-0
           3s Liveness probe of web-0
           3s Readiness probe of web-0
        Running; web: running ready restarts=0
    "#]],
    );
}
