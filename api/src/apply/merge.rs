//! Merges an applied configuration into the live object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::Element;
use super::place::{Atom, Fields, Place, atom, item_element};
use crate::schema::{List, Schema};

/// The live object with everything that `config` says.
pub(super) fn merge(schema: &Schema, live: &Value, config: &Value) -> Value {
    value(schema, Place::Root, Some(live), Some(config)).unwrap_or(Value::Null)
}

type Side<'v> = Option<&'v Value>;

fn value(schema: &Schema, place: Place<'_>, live: Side<'_>, config: Side<'_>) -> Option<Value> {
    let bare = |side: Side<'_>| {
        side.is_none_or(|value| match value {
            Value::Object(map) => map.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => true,
        })
    };
    match atom(schema, place, config.or(live)) {
        Atom::Map { fields, atomic: false } if !(bare(live) && bare(config)) => map(schema, fields, live, config),
        Atom::List { of, kind: kind @ (List::Map(_) | List::Set) } if !(bare(live) && bare(config)) => {
            list(schema, of, kind, live, config)
        }
        _ => config.or(live).cloned(),
    }
}

fn map(schema: &Schema, fields: Fields<'_>, live: Side<'_>, config: Side<'_>) -> Option<Value> {
    let empty = Map::new();
    let (live, config) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
    let (live, config) = (live.unwrap_or(&empty), config.unwrap_or(&empty));
    let new = config.keys().filter(|key| !live.contains_key(*key));
    let merged = live.keys().chain(new).filter_map(|key| {
        let place = fields.get(key).unwrap_or(Place::Deduced);
        Some((key.clone(), value(schema, place, live.get(key), config.get(key))?))
    });
    let merged: Map<String, Value> = merged.collect();
    (!merged.is_empty()).then_some(Value::Object(merged))
}

/// The items of a list by identity, in their order. Of a live list duplicates keep their places but no value.
struct Indexed<'v> {
    order: Vec<(Element, &'v Value)>,
    found: BTreeMap<Element, Option<&'v Value>>,
}

fn index<'v>(schema: &Schema, of: Place<'_>, kind: &List, side: Side<'v>) -> Indexed<'v> {
    let mut indexed = Indexed { order: Vec::new(), found: BTreeMap::new() };
    for item in side.and_then(Value::as_array).into_iter().flatten() {
        let Ok(element) = item_element(schema, of, kind, item) else { continue };
        indexed.found.entry(element.clone()).and_modify(|value| *value = None).or_insert(Some(item));
        indexed.order.push((element, item));
    }
    indexed
}

/// Merges two lists: items of both in the order of the configuration, live ones kept between them where they stood.
fn list(schema: &Schema, of: Place<'_>, kind: &List, live: Side<'_>, config: Side<'_>) -> Option<Value> {
    let (live, config) = (index(schema, of, kind, live), index(schema, of, kind, config));
    let mut out = Vec::new();
    let mut push = |live: Side<'_>, config: Side<'_>| out.extend(value(schema, of, live, config));
    let shared: Vec<&Element> =
        config.order.iter().map(|(element, _)| element).filter(|element| live.found.contains_key(element)).collect();
    let mut next_shared = shared.into_iter().peekable();
    let mut done: Vec<&Element> = Vec::new();
    let (mut left, mut right) = (live.order.iter().peekable(), config.order.iter().peekable());
    while left.peek().is_some() || right.peek().is_some() {
        if let (Some((element, _)), Some((wanted, item))) = (left.peek(), right.peek()) {
            if element == wanted {
                push(live.found.get(element).copied().flatten(), Some(item));
                done.push(wanted);
                left.next();
                right.next();
                next_shared.next();
                continue;
            }
            let is_later =
                config.found.contains_key(element) && next_shared.peek().is_some_and(|next| *next != element);
            if is_later {
                left.next();
                continue;
            }
        }
        if let Some((element, item)) = left.peek() {
            if !config.found.contains_key(element) {
                push(Some(item), None);
                left.next();
                continue;
            }
            if done.contains(&element) {
                left.next();
            }
        }
        if let Some((element, item)) = right.next() {
            push(live.found.get(element).copied().flatten(), Some(item));
            done.push(element);
            if next_shared.peek().is_some_and(|next| *next == element) {
                next_shared.next();
            }
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}
