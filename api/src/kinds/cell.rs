//! How the cells of tables are written (`pkg/printers`).

use serde_json::Value;

use crate::tree::{map, text};
use crate::{Document, LabelSelector, Timestamp, time};

/// `<none>`.
pub(crate) const NONE: &str = "<none>";
/// `<unset>`.
pub(crate) const UNSET: &str = "<unset>";

/// A row of cells.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { Some(vec![$(serde_json::Value::from($cell)),*]) };
}
pub(crate) use row;

/// The object's age.
pub(crate) fn age(object: &Document, now: Timestamp) -> String {
    time::age(object, now)
}

/// A text, or `instead` where it is empty.
pub(crate) fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

/// A whole number of the object, nought where it is absent.
pub(crate) fn count(object: &Document, pointer: &str) -> i64 {
    object.i64_at(pointer).unwrap_or_default()
}

/// The names and the images of the containers at a pointer.
pub(crate) fn containers(object: &Document, pointer: &str) -> (String, String) {
    let join = |field| object.list_at(pointer).iter().map(|c| text(c, field)).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

/// A map of labels, `a=1,b=2`.
pub(crate) fn labels(labels: Option<&Value>) -> String {
    let pairs: Vec<String> = map(labels).map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    or(&pairs.join(","), NONE).into()
}

/// A label selector in the form that `-l` takes, empty where it selects all or nothing.
pub(crate) fn selector(selector: Option<&Value>) -> String {
    match LabelSelector::from_object(selector) {
        Ok(selector) => selector.to_string(),
        Err(_) => "<invalid>".into(),
    }
}

/// The same with `<none>` for nothing.
pub(crate) fn selector_or_none(value: Option<&Value>) -> String {
    or(&selector(value), NONE).into()
}

/// `25%` or `3`; `instead` where there is none.
pub(crate) fn int_or_string(value: Option<&Value>, instead: &str) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => instead.into(),
    }
}

/// `True` or `False`; `<unset>` where there is none.
pub(crate) fn boolean(value: Option<&Value>) -> &'static str {
    match value.and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    }
}

/// The condition of a type.
pub(crate) fn condition<'a>(object: &'a Document, kind: &str) -> Option<&'a Value> {
    object.list_at("/status/conditions").iter().find(|c| text(c, "type") == kind)
}

/// Whether the condition of a type is true.
pub(crate) fn is_true(object: &Document, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| text(c, "status") == "True")
}

/// Up to three texts, and how many more there are.
pub(crate) fn first_three(all: &[String], instead: &str) -> String {
    let shown = all.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(3) {
        0 => or(&shown, instead).into(),
        more => format!("{shown} + {more} more..."),
    }
}
