//! From the first sight of a pod to its end.

use expect_test::{Expect, expect};
use node_plan::Fact;
use node_plan::step::StartFailure;
use serde_json::json;

use crate::pod;
use crate::story::Story;

fn check(story: &Story, expected: Expect) {
    expected.assert_eq(&format!("{}{}", story.log, story.summary()));
}

#[test]
fn a_plain_pod_starts_in_order() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "web"}]})));
    story.settle();
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
        Running; web: running ready restarts=0
    "#]],
    );
}

#[test]
fn init_containers_and_sidecars_go_first() {
    let spec = json!({
        "initContainers": [
            {"name": "one"},
            {"name": "proxy", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1}},
            {"name": "two"},
        ],
        "containers": [{"name": "web"}],
    });
    let mut story = Story::new(pod(spec));
    story.settle();
    story.exit("one", 0);
    story.pass(1);
    let before = story.summary();
    story.exit("two", 0);
    story.log.push_str(&before);
    check(
        &story,
        expect![[r#"
           0s attach the network
           0s mount volumes
           0s start the sandbox
           0s find the image of one
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s start one-0
           0s   event Created: Container created
           0s   event Started: Container started
           0s one exits with 0
           0s find the image of proxy
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s remove one-0
           0s start proxy-0
           0s   event Created: Container created
           0s   event Started: Container started
           0s Startup probe of proxy-0
           0s find the image of two
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s start two-0
           0s   event Created: Container created
           0s   event Started: Container started
           1s two exits with 0
           1s find the image of web
           1s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           1s remove two-0
           1s start web-0
           1s   event Created: Container created
           1s   event Started: Container started
        Pending; one: terminated Completed 0 ready restarts=0; proxy: running ready restarts=0; two: running restarts=0; web: waiting PodInitializing restarts=0
          not Initialized: ContainersNotInitialized containers with incomplete status: [two]
          not Ready: ContainersNotReady containers with unready status: [web]
          not ContainersReady: ContainersNotReady containers with unready status: [web]
        Running; one: terminated Completed 0 ready restarts=0; proxy: running ready restarts=0; two: terminated Completed 0 ready restarts=0; web: running ready restarts=0
    "#]],
    );
}

#[test]
fn a_failed_init_container_of_a_pod_that_never_restarts_ends_it() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "one"}], "containers": [{"name": "web"}]});
    let mut story = Story::new(pod(spec)).running();
    story.exit("one", 3);
    check(
        &story,
        expect![[r#"
           0s one exits with 3
           0s stop the pod within 30 s
           0s remove one-0
           0s tear down
        Failed; one: terminated Error 3 restarts=0; web: waiting PodInitializing restarts=0
          not PodReadyToStartContainers: PodSandboxNotReady pod sandbox is not ready
          not Initialized: ContainersNotInitialized containers with incomplete status: [one]
          not Ready: PodFailed 
          not ContainersReady: PodFailed 
    "#]],
    );
}

#[test]
fn a_crashing_container_waits_twice_as_long_each_time() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "web"}]}))).running();
    story.exit("web", 1);
    story.exit("web", 1);
    let waiting = story.summary();
    story.pass(10);
    story.exit("web", 1);
    story.pass(20);
    story.log.push_str(&waiting);
    check(
        &story,
        expect![[r#"
           0s web exits with 1
           0s find the image of web
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s remove web-0
           0s start web-1
           0s   event Created: Container created
           0s   event Started: Container started
           0s web exits with 1
           0s tell that web waits
           0s   event BackOff: Back-off restarting failed container web in pod web_default(u1)
           0s remove web-1
          10s find the image of web
          10s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
          10s start web-2
          10s   event Created: Container created
          10s   event Started: Container started
          10s web exits with 1
          10s tell that web waits
          10s   event BackOff: Back-off restarting failed container web in pod web_default(u1)
          10s remove web-2
          30s find the image of web
          30s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
          30s start web-3
          30s   event Created: Container created
          30s   event Started: Container started
        Running; web: waiting CrashLoopBackOff restarts=1
          not Ready: ContainersNotReady containers with unready status: [web]
          not ContainersReady: ContainersNotReady containers with unready status: [web]
        Running; web: running ready restarts=3
    "#]],
    );
}

#[test]
fn the_wait_grows_to_five_minutes_and_is_forgotten_after_ten() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "web"}]}))).running();
    let mut waits = Vec::new();
    for _ in 0..8 {
        story.exit("web", 1);
        waits.push(story.seen.containers["web"].backoff.as_ref().map(|b| b.delay_s).unwrap());
        story.pass(300);
    }
    story.pass(700);
    story.exit("web", 1);
    waits.push(story.seen.containers["web"].backoff.as_ref().map(|b| b.delay_s).unwrap());
    assert_eq!(waits, [10, 10, 20, 40, 80, 160, 300, 300, 10]);
}

#[test]
fn on_failure_restarts_only_failures() {
    let spec = json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}, {"name": "b"}]});
    let mut story = Story::new(pod(spec)).running();
    story.exit("a", 0);
    story.exit("b", 2);
    story.exit("b", 0);
    check(
        &story,
        expect![[r#"
           0s a exits with 0
           0s remove a-0
           0s b exits with 2
           0s find the image of b
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s remove b-0
           0s start b-1
           0s   event Created: Container created
           0s   event Started: Container started
           0s b exits with 0
           0s stop the pod within 30 s
           0s remove b-1
           0s tear down
        Succeeded; a: terminated Completed 0 restarts=0; b: terminated Completed 0 restarts=1
          not PodReadyToStartContainers: PodSandboxNotReady pod sandbox is not ready
          not Ready: PodCompleted 
          not ContainersReady: PodCompleted 
    "#]],
    );
}

#[test]
fn a_deleted_pod_ends_in_grace_with_its_sidecars_last() {
    let spec = json!({
        "initContainers": [{"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}],
        "containers": [{"name": "web", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}],
    });
    let mut story = Story::new(pod(spec)).running();
    story.delete(30);
    check(
        &story,
        expect![[r#"
           0s deleted, grace 30
           0s stop the pod within 30 s
           0s stop web-0
           0s   event Killing: Stopping container web
           0s preStop of web-0
           0s signal 15 to web-0
           0s remove web-0
           0s stop s2-0
           0s   event Killing: Stopping container s2
           0s signal 15 to s2-0
           0s remove s2-0
           0s stop s1-0
           0s   event Killing: Stopping container s1
           0s signal 15 to s1-0
           0s remove s1-0
           0s tear down
           0s forget
        Failed; s1: terminated Error 143 restarts=0; s2: terminated Error 143 restarts=0; web: terminated Error 143 restarts=0
          not PodReadyToStartContainers: PodSandboxNotReady pod sandbox is not ready
          not Ready: PodFailed 
          not ContainersReady: PodFailed 
    "#]],
    );
}

#[test]
fn what_does_not_listen_is_killed_and_a_shorter_grace_counts() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "web"}]}))).running();
    story.deaf = true;
    story.delete(30);
    story.pass(5);
    story.delete(3);
    story.pass(10);
    check(
        &story,
        expect![[r#"
           0s deleted, grace 30
           0s stop the pod within 30 s
           0s stop web-0
           0s   event Killing: Stopping container web
           0s signal 15 to web-0
           5s deleted, grace 3
           5s stop the pod within 3 s
           8s signal 9 to web-0
           8s remove web-0
           8s tear down
           8s forget
        Failed; web: terminated Error 137 restarts=0
          not PodReadyToStartContainers: PodSandboxNotReady pod sandbox is not ready
          not Ready: PodFailed 
          not ContainersReady: PodFailed 
    "#]],
    );
}

#[test]
fn a_hook_that_uses_up_the_grace_leaves_two_seconds() {
    let spec = json!({"containers": [{"name": "web", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]});
    let mut story = Story::new(pod(spec)).running();
    (story.deaf, story.slow_hooks) = (true, true);
    story.delete(5);
    story.pass(30);
    check(
        &story,
        expect![[r#"
           0s deleted, grace 5
           0s stop the pod within 5 s
           0s stop web-0
           0s   event Killing: Stopping container web
           0s preStop of web-0
           5s signal 15 to web-0
           7s signal 9 to web-0
           7s remove web-0
           7s tear down
           7s forget
        Failed; web: terminated Error 137 restarts=0
          not PodReadyToStartContainers: PodSandboxNotReady pod sandbox is not ready
          not Ready: PodFailed 
          not ContainersReady: PodFailed 
    "#]],
    );
}

#[test]
fn the_deadline_fails_the_pod() {
    let spec = json!({"activeDeadlineSeconds": 5, "containers": [{"name": "web"}]});
    let mut story = Story::new(pod(spec)).running();
    story.pass(6);
    check(
        &story,
        expect![[r#"
           5s conclude DeadlineExceeded
           5s   event DeadlineExceeded: Pod was active on the node longer than the specified deadline
           5s stop the pod within 30 s
           5s stop web-0
           5s   event Killing: Stopping container web
           5s signal 15 to web-0
           5s remove web-0
           5s tear down
        Failed (DeadlineExceeded); web: terminated Error 143 restarts=0
          not PodReadyToStartContainers: PodSandboxNotReady pod sandbox is not ready
          not Ready: PodFailed 
          not ContainersReady: PodFailed 
    "#]],
    );
}

#[test]
fn an_image_that_cannot_be_pulled_is_tried_again() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "web", "imagePullPolicy": "Always"}]})));
    story.no_image = true;
    story.settle();
    let first = story.summary();
    story.pass(5);
    let second = story.summary();
    story.no_image = false;
    story.pass(6);
    story.log.push_str(&format!("{first}{second}"));
    check(
        &story,
        expect![[r#"
           0s attach the network
           0s mount volumes
           0s start the sandbox
           0s find the image of web
           0s   event Pulling: Pulling image "busybox"
           0s   event Failed: Failed to pull image "busybox": no such host
           0s   event Failed: Error: ErrImagePull
           2s tell that web waits
           2s   event BackOff: Back-off pulling image "busybox"
          10s find the image of web
          10s   event Pulling: Pulling image "busybox"
          10s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
          10s start web-0
          10s   event Created: Container created
          10s   event Started: Container started
        Pending; web: waiting ErrImagePull restarts=0
          not Ready: ContainersNotReady containers with unready status: [web]
          not ContainersReady: ContainersNotReady containers with unready status: [web]
        Pending; web: waiting ImagePullBackOff restarts=0
          not Ready: ContainersNotReady containers with unready status: [web]
          not ContainersReady: ContainersNotReady containers with unready status: [web]
        Running; web: running ready restarts=0
    "#]],
    );
}

#[test]
fn a_missing_key_waits_and_a_bad_command_counts_as_a_run() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "a"}, {"name": "b"}]})));
    story.bad_start.insert("a".into(), StartFailure::Config("configmap \"x\" not found".into()));
    story.bad_start.insert("b".into(), StartFailure::Run("exec: \"nope\": not found".into()));
    story.settle();
    check(
        &story,
        expect![[r#"
           0s attach the network
           0s mount volumes
           0s start the sandbox
           0s find the image of a
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s find the image of b
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s start a-0
           0s   event Failed: Error: configmap "x" not found
           0s start b-0
           0s   event Failed: Error: exec: "nope": not found
           0s find the image of b
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s remove b-0
           0s start b-1
           0s   event Failed: Error: exec: "nope": not found
           0s tell that b waits
           0s   event BackOff: Back-off restarting failed container b in pod web_default(u1)
           0s remove b-1
        Pending; a: waiting CreateContainerConfigError restarts=0; b: waiting CrashLoopBackOff restarts=1
          not Ready: ContainersNotReady containers with unready status: [a b]
          not ContainersReady: ContainersNotReady containers with unready status: [a b]
    "#]],
    );
}

#[test]
fn a_post_start_hook_holds_the_container_back_and_its_failure_ends_it() {
    let spec = json!({"containers": [{"name": "web", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}]});
    let mut story = Story::new(pod(spec));
    story.slow_hooks = true;
    story.settle();
    let held = story.summary();
    let which = node_plan::Lifecycle::PostStart;
    story.fact(Fact::Hook { container: "web".into(), run: "web-0".into(), which, result: Err("no".into()) });
    story.log.push_str(&held);
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
           0s postStart of web-0
           0s   event FailedPostStartHook: PostStartHook failed
           0s stop web-0
           0s   event Killing: FailedPostStartHook
           0s signal 15 to web-0
           0s find the image of web
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s remove web-0
           0s start web-1
           0s   event Created: Container created
           0s   event Started: Container started
           0s postStart of web-1
        Pending; web: waiting ContainerCreating restarts=0
          not Ready: ContainersNotReady containers with unready status: [web]
          not ContainersReady: ContainersNotReady containers with unready status: [web]
        Running; web: waiting ContainerCreating restarts=1
          not Ready: ContainersNotReady containers with unready status: [web]
          not ContainersReady: ContainersNotReady containers with unready status: [web]
    "#]],
    );
}

#[test]
fn a_lost_sandbox_is_made_again_and_counts() {
    let spec = json!({"initContainers": [{"name": "one"}], "containers": [{"name": "web"}]});
    let mut story = Story::new(pod(spec)).running();
    story.exit("one", 0);
    story.log.clear();
    story.fact(Fact::SandboxLost);
    story.exit("one", 0);
    check(
        &story,
        expect![[r#"
           0s   event SandboxChanged: Pod sandbox changed, it will be killed and re-created.
           0s attach the network
           0s mount volumes
           0s start the sandbox
           0s find the image of one
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s start one-1
           0s   event Created: Container created
           0s   event Started: Container started
           0s one exits with 0
           0s find the image of web
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s remove one-1
           0s start web-1
           0s   event Created: Container created
           0s   event Started: Container started
        Running; one: terminated Completed 0 ready restarts=1; web: running ready restarts=1
    "#]],
    );
}

#[test]
fn an_adopted_pod_goes_on_with_pid_and_count() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "web"}]}))).running();
    story.exit("web", 1);
    let text = serde_json::to_string(&story.seen).unwrap();
    story.seen = serde_json::from_str(&text).unwrap();
    story.seen.adopt();
    story.log.clear();
    story.settle();
    assert_eq!(story.log, "");
    let run = story.seen.containers["web"].current.clone().unwrap();
    assert_eq!((run.pid, run.attempt), (7, 1));
}

#[test]
fn a_start_that_the_old_agent_did_not_live_to_note_is_found() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "web"}]}))).running();
    let run = story.seen.containers["web"].current.clone().unwrap();
    let seen = story.seen.containers.get_mut("web").unwrap();
    (seen.current, seen.starting) = (None, true);
    story.seen.adopt();
    let process = node_plan::step::Process { pid: 9, started_at: run.started_at };
    story.fact(Fact::Process { run: "web-0".into(), process, exit: None, message: String::new() });
    assert_eq!(story.log, "");
    assert_eq!(story.seen.containers["web"].current.clone().unwrap().pid, 9);
}

#[test]
fn a_run_that_the_shim_tells_before_its_starter_keeps_the_one_before() {
    let mut story = Story::new(pod(json!({"containers": [{"name": "web"}]}))).running();
    story.exit("web", 137);
    let run = story.seen.containers["web"].current.clone().unwrap();
    let process = node_plan::step::Process { pid: run.pid, started_at: run.started_at };
    story.fact(Fact::Started { container: "web".into(), attempt: 1, result: Ok(process) });
    let status = story.status().container_statuses.unwrap().remove(0);
    assert_eq!(status.restart_count, 1);
    assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 137);
}
