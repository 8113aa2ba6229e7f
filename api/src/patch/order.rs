//! The order of a merged list: `$setElementOrder`, then the patch's own, then the live one, as far as they agree.

use serde_json::Value;

use super::shown;
use super::strategic::{DIRECTIVE, Fault};

/// What tells items apart: the merge key's value, or (for scalars, without a key) the item.
fn identity<'a>(item: &'a Value, key: &str) -> Option<&'a Value> {
    if key.is_empty() { Some(item) } else { item.get(key) }
}

fn position(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    let wanted = identity(item, key);
    list.iter().position(|other| identity(other, key) == wanted)
}

/// Parts the items into those that `by` names and the others.
pub(super) fn partition(items: Vec<Value>, by: &[Value], key: &str) -> Result<(Vec<Value>, Vec<Value>), Fault> {
    if !key.is_empty() {
        items.iter().try_for_each(|item| has_key(item, key))?;
    }
    Ok(items.into_iter().partition(|item| position(by, item, key).is_some()))
}

fn has_key(item: &Value, key: &str) -> Result<(), Fault> {
    match item {
        Value::Object(map) if map.contains_key(key) => Ok(()),
        Value::Object(map) => Err(Fault::no_merge_key(map, key)),
        other => Err(Fault::bad_type("map[string]interface {}", other)),
    }
}

/// Joins patched and other items: each part in its own order, interleaved by the live order where that says something,
/// else the patched ones first.
pub(super) fn enforce(
    mut patched: Vec<Value>,
    mut others: Vec<Value>,
    patch_order: &[Value],
    live_order: &[Value],
    key: &str,
) -> Result<Vec<Value>, Fault> {
    if !key.is_empty() {
        let all = patched.iter().chain(patch_order).chain(live_order);
        all.into_iter().try_for_each(|item| has_key(item, key))?;
    }
    let by = |order: &[Value], items: &mut Vec<Value>| {
        items.sort_by_key(|item| position(order, item, key).unwrap_or_default());
    };
    by(patch_order, &mut patched);
    by(live_order, &mut others);
    let mut joined = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), patched.peek()) {
            (Some(other), Some(patch)) => {
                let (other, patch) = (position(live_order, other, key), position(live_order, patch, key));
                other.zip(patch).is_some_and(|(other, patch)| other < patch)
            }
            (other, _) => other.is_some(),
        };
        match if other_first { others.next() } else { patched.next() } {
            Some(item) => joined.push(item),
            None => return Ok(joined),
        }
    }
}

/// Whether the patch's list keeps to the order that is set, and names no others.
pub(super) fn check(patch: Option<&[Value]>, set: &[Value], key: &str) -> Result<(), Fault> {
    let Some(patch) = patch.filter(|patch| !patch.is_empty() && !set.is_empty()) else { return Ok(()) };
    let mut set_items = set.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if !key.is_empty() {
            has_key(item, key)?;
        }
        if !set_items.any(|other| identity(other, key) == identity(item, key)) {
            let (patch, set) = (shown::list(patch), shown::list(set));
            let text = format!("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{set}\n");
            return Err(Fault::Other(text));
        }
    }
    Ok(())
}
