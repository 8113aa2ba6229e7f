//! A node that runs short of memory or disk.

use node_plan::Fact;
use node_plan::pressure::{Level, Resource, Usage, admit, victim};
use serde_json::{Value, json};

use crate::pod;
use crate::story::Story;

const MEMORY: Level = Level { resource: Resource::Memory, available: 90 << 20, size: 8 << 30 };

fn named(name: &str, spec: Value) -> api::k8s_openapi::api::core::v1::Pod {
    let mut pod = pod(spec);
    pod.metadata.name = Some(name.into());
    pod
}

fn asking(memory: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}]})
}

#[test]
fn thresholds_are_crossed_from_above() {
    assert!(MEMORY.is_short());
    assert!(!Level { available: 100 << 20, ..MEMORY }.is_short());
    let disk = |available| Level { resource: Resource::Disk, available, size: 1000 };
    assert_eq!([disk(99).is_short(), disk(100).is_short()], [true, false]);
    assert!(!Level { resource: Resource::Disk, available: 0, size: 0 }.is_short(), "a disk that cannot be read");
}

#[test]
fn who_takes_more_than_asked_goes_first_then_the_least_important() {
    let usage = |mi: u64| Usage { total: mi << 20, containers: vec![("c".into(), mi << 20)] };
    let mut spec = asking("1Gi");
    spec["priority"] = json!(-5);
    let modest = (named("modest", spec), usage(900));
    let over = (named("over", asking("100Mi")), usage(200));
    let more = (named("more", asking("100Mi")), usage(300));
    let mut spec = asking("0");
    spec["priority"] = json!(1000);
    let important = (named("important", spec.clone()), usage(5000));
    spec["priority"] = json!(2_000_001_000);
    let critical = (named("critical", spec), usage(6000));
    let mut pods = vec![critical, important, modest, over, more];
    let mut order = Vec::new();
    while let Some((pod, verdict)) = victim(&MEMORY, &pods) {
        let name = pod.metadata.name.clone().unwrap();
        if name == "more" {
            let wanted = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. \
                Container c was using 300Mi, request is 100Mi, has larger consumption of memory. ";
            assert_eq!((verdict.reason.as_str(), verdict.message.as_str()), ("Evicted", wanted));
        }
        pods.retain(|(pod, _)| pod.metadata.name.as_ref() != Some(&name));
        order.push(name);
    }
    assert_eq!(order, ["more", "over", "important", "modest"]);
}

#[test]
fn a_node_in_need_takes_few() {
    let best_effort = pod(json!({"containers": [{"name": "c"}]}));
    let burstable = pod(asking("1Mi"));
    let said = |pod, short: &[Resource]| admit(pod, short).map(|v| v.message);
    assert_eq!(said(&best_effort, &[]), None);
    assert_eq!(said(&burstable, &[Resource::Memory]), None);
    assert_eq!(said(&best_effort, &[Resource::Memory]).as_deref(), Some("The node had condition: [MemoryPressure]. "));
    let both = [Resource::Memory, Resource::Disk];
    let wanted = Some("The node had condition: [MemoryPressure DiskPressure]. ");
    assert_eq!(said(&burstable, &both).as_deref(), wanted);
    let mut tolerant = best_effort.clone();
    let toleration = json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"});
    tolerant.spec.as_mut().unwrap().tolerations = Some(vec![serde_json::from_value(toleration).unwrap()]);
    assert_eq!(said(&tolerant, &[Resource::Memory]), None);
    assert!(said(&tolerant, &both).is_some());
}

#[test]
fn an_evicted_pod_fails_within_a_second() {
    let mut story = Story::new(pod(asking("1Mi"))).running();
    story.deaf = true;
    let (_, verdict) = victim(&MEMORY, &[(story.pod.clone(), Usage::default())]).map(|(p, v)| (p.clone(), v)).unwrap();
    story.fact(Fact::Evicted(verdict));
    story.pass(1);
    assert!(story.node.log.ends_with("c-0 ends with 137\ntorn down\n"), "{}", story.log);
    let status = story.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    let condition = status.conditions.unwrap().into_iter().find(|c| c.type_ == "DisruptionTarget").unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("True", Some("TerminationByKubelet")));
}
