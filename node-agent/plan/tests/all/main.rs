//! Stories of pods, and tables of values. The node is played by `story`: every step succeeds at once unless the story
//! says otherwise, and time passes only when it is told to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod crashes;
mod dns_records;
mod environment;
mod files_of_etc;
mod frontends;
mod lifecycle;
mod limits;
mod pressures;
mod probes;
mod resizes;
mod specification;
mod statuses;
mod story;
mod volumes;

use api::k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// A pod with this spec, named `default/web`.
pub(crate) fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    let lists = ["containers", "initContainers"];
    for container in lists.iter().filter_map(|l| spec.get(*l).cloned()).flat_map(|l| l.as_array().cloned().unwrap()) {
        assert!(container.get("name").is_some(), "a container without a name");
    }
    for list in lists {
        for container in spec.get_mut(list).and_then(|l| l.as_array_mut()).into_iter().flatten() {
            let map = container.as_object_mut().unwrap();
            map.entry("image").or_insert(json!("busybox"));
            map.entry("imagePullPolicy").or_insert(json!("IfNotPresent"));
        }
    }
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}
