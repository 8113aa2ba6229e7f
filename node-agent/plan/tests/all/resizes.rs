//! Resources that change while a container runs.

use expect_test::{Expect, expect};
use serde_json::json;

use crate::pod;
use crate::story::Story;

/// A running pod that is then to have other resources, and what its status says of them.
fn check(policy: &str, no_room: Option<&'static str>, seconds: i64, expected: Expect) {
    let spec = |cpu: &str| {
        let resources = json!({"requests": {"cpu": cpu, "memory": "16Mi"}, "limits": {"cpu": "2"}});
        let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
        pod(json!({"containers": [{"name": "web", "resources": resources, "resizePolicy": policy}]}))
    };
    let mut story = Story::new(spec("1")).running();
    story.pod.spec = spec("1500m").spec;
    story.no_room = no_room;
    story.settle();
    story.pass(seconds);
    story.no_room = None;
    story.pass(20);
    let status = story.status();
    let of = status.container_statuses.unwrap().remove(0);
    let conditions: Vec<_> = status.conditions.unwrap().into_iter().filter(|c| c.type_.contains("Resize")).collect();
    let text = format!(
        "{}allocated {:?} requests {:?} restarts {} {conditions:?}\n",
        story.log,
        of.allocated_resources.unwrap()["cpu"].0,
        of.resources.unwrap().requests.unwrap()["cpu"].0,
        of.restart_count
    );
    expected.assert_eq(&text);
}

#[test]
fn cgroups_change_in_place() {
    check(
        "NotRequired",
        None,
        0,
        expect![[r#"
           0s resize web-0
        allocated "1500m" requests "1500m" restarts 0 []
    "#]],
    );
}

#[test]
fn a_policy_wants_a_restart() {
    check(
        "RestartContainer",
        None,
        0,
        expect![[r#"
           0s resize web-0
           0s   event Killing: Container web resize requires restart
           0s signal 15 to web-0
           0s find the image of web
           0s   event Pulled: Container image "busybox" already present on machine and can be accessed by the pod
           0s remove web-0
           0s start web-1
           0s   event Created: Container created
           0s   event Started: Container started
        allocated "1500m" requests "1500m" restarts 1 []
    "#]],
    );
}

#[test]
fn what_does_not_fit_is_tried_again() {
    check(
        "NotRequired",
        Some("Deferred"),
        25,
        expect![[r#"
           0s resize web-0
          30s resize web-0
        allocated "1500m" requests "1500m" restarts 0 []
    "#]],
    );
}

#[test]
fn a_refusal_is_told() {
    let spec = |cpu: &str| pod(json!({"containers": [{"name": "web", "resources": {"requests": {"cpu": cpu}}}]}));
    let mut story = Story::new(spec("1")).running();
    story.no_room = Some("Infeasible");
    story.pod.spec = spec("100").spec;
    story.settle();
    let told = |story: &Story| {
        let conditions = story.status().conditions.unwrap();
        let condition = conditions.into_iter().find(|c| c.type_.contains("Resize"));
        condition.map(|c| format!("{} {} {} {}", c.type_, c.status, c.reason.unwrap(), c.message.unwrap()))
    };
    assert_eq!(told(&story).as_deref(), Some("PodResizePending True Infeasible too much"));
    story.pod.spec = spec("1").spec;
    story.settle();
    assert_eq!(told(&story), None, "nothing else is wanted any more");
}
