//! Effects as short lines.

use reconcile::{Effect, Target};

fn target(target: &Target, subresource: &str) -> String {
    let below = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
    format!("{}{below} {}", target.resource, target.object)
}

/// One effect as a line.
pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Create { resource, namespace, object, .. } => {
            let meta = &object["metadata"];
            let name = meta["name"].as_str().map_or_else(|| format!("{}*", text(&meta["generateName"])), str::to_owned);
            format!("create {resource} {namespace}/{name}")
        }
        Effect::Update { target: t, subresource, .. } => format!("update {}", target(t, subresource)),
        Effect::Patch { target: t, subresource, body, .. } => {
            let mut body = body.clone();
            if let Some(meta) = body.get_mut("metadata").and_then(|m| m.as_object_mut()) {
                meta.remove("resourceVersion");
                meta.remove("uid");
            }
            format!("patch {} {body}", target(t, subresource))
        }
        Effect::Delete { target: t, propagation, grace_seconds, .. } => {
            let how = propagation.map(|p| format!(" {p:?}")).unwrap_or_default();
            let grace = grace_seconds.map(|g| format!(" grace {g}")).unwrap_or_default();
            format!("delete {}{how}{grace}", target(t, ""))
        }
        Effect::DeleteCollection { resource, namespace } => format!("delete all {resource} in {namespace}"),
        Effect::Post { target: t, subresource, .. } => format!("post {}", target(t, subresource)),
        Effect::Sign(signing) => format!("sign {}", target(&signing.target, "")),
        Effect::Event(notice) => format!("event {}: {}", notice.reason, notice.message),
    }
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
