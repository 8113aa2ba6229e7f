//! The template of a workload's pods.

use serde_json::Value;

use super::text::Text;
use super::{pod, volume};
use crate::verbs::value::{list, text};

pub(super) fn template(template: &Value, out: &mut Text) {
    let spec = template.get("spec").unwrap_or(&Value::Null);
    out.line(0, "Pod Template:");
    out.pairs("  Labels", template.pointer("/metadata/labels"));
    let annotations = template.pointer("/metadata/annotations");
    if annotations.and_then(Value::as_object).is_some_and(|a| !a.is_empty()) {
        out.annotations("  Annotations", annotations);
    }
    out.some(1, "Service Account", text(spec, "serviceAccountName"));
    pod::containers(spec, None, "  ", out);
    volume::volumes(list(spec, "volumes"), "  ", out);
    out.some(1, "Priority Class Name", text(spec, "priorityClassName"));
    out.pairs("  Node-Selectors", spec.get("nodeSelector"));
    out.lines("  Tolerations", &pod::tolerations(list(spec, "tolerations")));
}
