//! Requests and limits as cgroups see them, and quality of service.

use node_plan::limits::{Totals, of_container, of_pod};
use node_plan::qos::{cgroup, oom_score_adj, qos_class};
use serde_json::json;

use crate::pod;

#[test]
fn classes_and_who_is_killed_first() {
    let table = [
        (json!({}), "BestEffort", 1000, "r/besteffort/podu1"),
        (json!({"requests": {"memory": "1Gi"}}), "Burstable", 750, "r/burstable/podu1"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed", -997, "r/podu1"),
        (json!({"requests": {"cpu": "0"}}), "BestEffort", 1000, "r/besteffort/podu1"),
    ];
    for (resources, class, score, group) in table {
        let pod = pod(json!({"containers": [{"name": "c", "resources": resources}]}));
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        assert_eq!(qos_class(&pod), class);
        assert_eq!(oom_score_adj(&pod, &container, 4 << 30), score);
        assert_eq!(cgroup("r", &pod), group);
    }
}

#[test]
fn shares_quota_and_memory() {
    let pod = pod(
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}}]}),
    );
    let resources = of_container(&pod.spec.as_ref().unwrap().containers[0]);
    let cpu = resources.cpu().clone().unwrap();
    assert_eq!((cpu.shares(), cpu.quota(), cpu.period()), (Some(256), Some(50_000), Some(100_000)));
    assert_eq!(resources.memory().unwrap().limit(), Some(64 << 20));
    assert_eq!(of_pod(&pod).memory().unwrap().limit(), Some(64 << 20));
}

#[test]
fn a_pod_asks_for_the_larger_of_start_up_and_running() {
    let cpu = |n: &str| json!({"requests": {"cpu": n}});
    let pod = pod(json!({
        "overhead": {"cpu": "10m"},
        "initContainers": [
            {"name": "side", "restartPolicy": "Always", "resources": cpu("100m")},
            {"name": "init", "resources": cpu("1")},
        ],
        "containers": [{"name": "a", "resources": cpu("200m")}, {"name": "b", "resources": cpu("300m")}],
    }));
    assert_eq!(Totals::of(&pod).cpu_request, 1110);
    assert_eq!(Totals::of(&pod).cpu_limit, None);
}
