//! Containers in OCI's words: who the process is and what it may do.

use node_plan::security::{ImageUsers, capabilities, identity};
use node_plan::spec::{Parts, spec, sub_path};
use serde_json::{Value, json};

use crate::pod;

#[test]
fn capabilities_by_add_and_drop() {
    let of = |context: Value| {
        let pod = pod(json!({"containers": [{"name": "c", "securityContext": context}]}));
        capabilities(&pod.spec.unwrap().containers[0])
    };
    assert_eq!(of(json!({})).len(), 14);
    assert_eq!(of(json!({"capabilities": {"drop": ["ALL"], "add": ["net_bind_service"]}})), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(of(json!({"privileged": true})).len(), 41);
    assert!(!of(json!({"capabilities": {"add": ["ALL"], "drop": ["SYS_ADMIN"]}})).contains(&"CAP_SYS_ADMIN".into()));
}

#[test]
fn users_from_the_pod_and_the_image() {
    let image = ImageUsers {
        user: "app:web",
        passwd: "root:x:0:0::/root:\napp:x:7:8::/home/app:\n",
        group: "web:x:9:\nextra:x:11:app\n",
    };
    let of = |spec: Value| {
        let pod = pod(spec);
        identity(&pod, &pod.spec.as_ref().unwrap().containers[0], &image).map(|i| (i.uid, i.gid, i.groups))
    };
    assert_eq!(of(json!({"containers": [{"name": "c"}]})), Ok((7, 9, vec![9, 11])));
    let own = json!({"securityContext": {"runAsUser": 1000, "fsGroup": 3, "supplementalGroups": [4]}, "containers": [{"name": "c"}]});
    assert_eq!(of(own), Ok((1000, 0, vec![0, 3, 4])));
    let named = of(json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}));
    assert!(named.unwrap_err().contains("non-numeric user (app)"));
    let wide = of(json!({"containers": [{"name": "c", "securityContext": {"runAsUser": 4294967296_i64}}]}));
    assert_eq!(wide, Err("runAsUser 4294967296 is out of range".into()));
}

/// Forms of `USER`, and who that is: a number of 32 bits, or nobody.
#[test]
fn users_of_images_are_numbers_of_32_bits_or_refused() {
    let pod = pod(json!({"containers": [{"name": "c"}]}));
    let of = |user: &str| {
        let passwd = "root:x:0:0::/root:\nwide:x:4294967296:0::/:\nnobody:x:4294967295:0::/:\n+7:x:+7:7::/:\n";
        let image = ImageUsers { user, passwd, group: "wide:x:4294967296:\n" };
        identity(&pod, &pod.spec.as_ref().unwrap().containers[0], &image).map(|i| (i.uid, i.gid))
    };
    for (user, wanted) in [
        ("", (0, 0)),
        ("0", (0, 0)),
        ("root", (0, 0)),
        ("1000", (1000, 0)),
        ("1000:1000", (1000, 1000)),
        ("root:5", (0, 5)),
        ("2147483648:2147483648", (2147483648, 2147483648)),
        ("4294967294:4294967294", (4294967294, 4294967294)),
    ] {
        assert_eq!(of(user), Ok(wanted), "{user}");
    }
    for user in [
        "4294967295",
        "0:4294967295",
        "4294967296",
        "0:4294967296",
        "18446744073709551616",
        "-1",
        "0:-1",
        "+1",
        "0:+1",
        "1:2:3",
        " 1",
        "1 ",
        "1\n",
        "0x1",
        "1e3",
        "one",
        "0:one",
        "wide",
        "nobody",
        "0:wide",
        "+7",
        ":wide",
        "\u{661}",
    ] {
        assert!(of(user).is_err_and(|e| e.contains("unable to find")), "{user:?}: {:?}", of(user));
    }
    for id in [4294967295_i64, 4294967296, -1] {
        let pod = crate::pod(json!({"containers": [{"name": "c", "securityContext": {"runAsUser": id}}]}));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let refused = identity(&pod, container, &ImageUsers::default()).unwrap_err();
        assert_eq!(refused, format!("runAsUser {id} is out of range"));
    }
}

#[test]
fn commands_replace_and_arguments_follow() {
    let (entry, cmd) = (vec!["/e".to_string()], vec!["c".to_string()]);
    let args = |container: Value| {
        let pod = pod(json!({"containers": [container]}));
        let parts = Parts { entrypoint: &entry, cmd: &cmd, env: vec![("A".into(), "1".into())], ..Parts::default() };
        let spec = spec(&pod, &pod.spec.as_ref().unwrap().containers[0], &parts);
        spec.map(|s| s.process().as_ref().unwrap().args().clone().unwrap().join(" "))
    };
    assert_eq!(args(json!({"name": "c"})), Ok("/e c".into()));
    assert_eq!(args(json!({"name": "c", "args": ["$(A)", "$(B)"]})), Ok("/e 1 $(B)".into()));
    assert_eq!(args(json!({"name": "c", "command": ["/x"]})), Ok("/x".into()));
}

#[test]
fn every_capability_reaches_the_specification() {
    let pod = pod(json!({"containers": [{"name": "c", "command": ["x"], "securityContext": {"privileged": true}}]}));
    let spec = spec(&pod, &pod.spec.as_ref().unwrap().containers[0], &Parts::default()).unwrap();
    let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 41);
    assert_eq!(sets.inheritable().as_ref().map_or(0, |s| s.len()), 0);
}

#[test]
fn parts_of_volumes_with_variables() {
    let mount = |m: Value| serde_json::from_value(m).unwrap();
    let env = [("POD".to_string(), "p".to_string())];
    let expr = |e: &str| sub_path(&mount(json!({"name": "v", "mountPath": "/v", "subPathExpr": e})), &env);
    assert_eq!(expr("a/$(POD)"), Ok(Some("a/p".into())));
    assert!(expr("$(NO)").is_err());
    assert_eq!(sub_path(&mount(json!({"name": "v", "mountPath": "/v"})), &env), Ok(None));
}
