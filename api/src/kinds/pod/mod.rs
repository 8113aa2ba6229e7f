//! Pod.

mod cells;
mod prepare;
mod qos;

use serde_json::Value;

use super::{Change, Rules, pod_spec};
use crate::tree::{fill, replace, set, text};
use crate::{Document, Timestamp};

/// Rules of `v1 Pod`.
pub(super) struct Pod;

impl Rules for Pod {
    fn default(&self, pod: &mut Document) {
        if let Some(spec) = pod.at_mut("/spec") {
            pod_spec::pod_spec(spec);
            pod_spec::pod(spec);
        }
        if let Some(status) = pod.at_mut("/status") {
            addresses(status);
        }
    }

    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        prepare::prepare(new, change);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn selectable(&self, pod: &Document) -> Vec<(&'static str, String)> {
        cells::selectable(pod)
    }

    fn row_conditions(&self, pod: &Document) -> Vec<Value> {
        cells::conditions(pod)
    }

    fn cells(&self, pod: &Document, now: Timestamp) -> Option<Vec<Value>> {
        cells::cells(pod, now)
    }
}

/// Keeps `podIP` and `podIPs` in step; the singular one wins.
fn addresses(status: &mut Value) {
    let single = text(status, "podIP").to_owned();
    let first = status.pointer("/podIPs/0/ip").and_then(Value::as_str).unwrap_or_default().to_owned();
    if single.is_empty() && !first.is_empty() {
        fill(status, "podIP", first);
    } else if !single.is_empty() && first != single {
        set(status, "podIPs", serde_json::json!([{"ip": single}]));
    } else if single.is_empty() {
        replace(status, "podIP", None);
    }
}
