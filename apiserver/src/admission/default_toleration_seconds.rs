//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable.

use api::{Document, StatusResult};
use serde_json::{Value, json};

use super::{Context, Plugin, push};

const SECONDS: i64 = 300;

pub(super) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate(&self, pod: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        if !matches!(context.verb(), "create" | "update") || !context.is("", "pods") {
            return Ok(());
        }
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerates = |toleration: &Value| {
                ["", key].contains(&text(toleration, "key").as_str())
                    && ["", "NoExecute"].contains(&text(toleration, "effect").as_str())
            };
            if !pod.list_at("/spec/tolerations").iter().any(tolerates) {
                let toleration =
                    json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
                push(pod, "/spec/tolerations", toleration);
            }
        }
        Ok(())
    }
}
