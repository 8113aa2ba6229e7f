//! Events below a description.

use api::{Timestamp, time};
use serde_json::Value;

use super::text::Text;
use crate::verbs::value::{number_at, text, text_at};

pub(super) fn events(events: &[Value], now: Timestamp, out: &mut Text) {
    if events.is_empty() {
        out.field(0, "Events", "<none>");
        return;
    }
    out.flush();
    out.line(0, "Events:");
    out.line(1, "Type\tReason\tAge\tFrom\tMessage");
    out.line(1, "----\t------\t----\t----\t-------");
    let mut sorted: Vec<&Value> = events.iter().collect();
    sorted.sort_by_key(|event| last(event).to_owned());
    for event in sorted {
        let source = match text_at(event, "/source/component") {
            "" => text(event, "reportingComponent"),
            component => component,
        };
        let message = text(event, "message").trim();
        let message = match text_at(event, "/involvedObject/fieldPath") {
            "" => message.to_owned(),
            path => format!("{path}: {message}"),
        };
        let cells = [text(event, "type"), text(event, "reason"), &age(event, now), source, &message];
        out.line(1, &cells.join("\t"));
    }
}

/// When it was last seen.
fn last(event: &Value) -> &str {
    let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/firstTimestamp"];
    times.iter().map(|pointer| text_at(event, pointer)).find(|t| !t.is_empty()).unwrap_or_default()
}

fn age(event: &Value, now: Timestamp) -> String {
    let first = match text(event, "eventTime") {
        "" => time::since(text(event, "firstTimestamp"), now),
        at => time::since(at, now),
    };
    let count = number_at(event, "/count");
    match event.pointer("/series/count").and_then(Value::as_i64) {
        Some(count) => format!("{} (x{count} over {first})", time::since(last(event), now)),
        None if count > 1 => format!("{} (x{count} over {first})", time::since(text(event, "lastTimestamp"), now)),
        None => first,
    }
}
