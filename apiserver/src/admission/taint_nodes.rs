//! TaintNodesByCondition: a new node takes no pods before it is seen to be ready.

use api::{Document, StatusResult};
use serde_json::{Value, json};

use super::{Context, Plugin, push};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn mutate(&self, node: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        let text = |taint: &Value, key: &str| taint.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let has = |taint: &Value| text(taint, "key") == NOT_READY && text(taint, "effect") == "NoSchedule";
        if context.verb() == "create" && context.is("", "nodes") && !node.list_at("/spec/taints").iter().any(has) {
            push(node, "/spec/taints", json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}
