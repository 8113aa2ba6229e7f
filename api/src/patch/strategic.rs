//! Strategic merge (`k8s.io/apimachinery/pkg/util/strategicpatch`): RFC 7386 with lists that merge by key, and
//! directives: `$patch`, `$retainKeys`, `$setElementOrder/...`, `$deleteFromPrimitiveList/...`.

use serde_json::{Map, Value};

use super::order::{self, enforce, partition};
use super::shown;
use crate::Status;
use crate::schema::{Item, Schema, Shape};

pub(super) const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

/// What is wrong with a patch.
pub(super) enum Fault {
    /// 400.
    Format(&'static str),
    /// 500: upstream does not tell these apart from its own failures.
    Other(String),
}

impl Fault {
    pub(super) fn status(self) -> Box<Status> {
        match self {
            Self::Format(text) => Status::bad_request(text),
            Self::Other(text) => Status::failure(500, "", text),
        }
    }

    pub(super) fn no_merge_key(map: &Map<String, Value>, key: &str) -> Self {
        Self::Other(format!("map: {} does not contain declared merge key: {key}", shown::map(map)))
    }

    pub(super) fn bad_type(expected: &str, found: &Value) -> Self {
        Self::Other(format!("expected a {expected}, but received a {}", shown::go_type(found)))
    }
}

const BAD_ORDER: Fault = Fault::Format("invalid patch format of setElementOrder list");
const BAD_RETAIN: Fault = Fault::Format("invalid patch format of retainKeys");
const BAD_DELETE: Fault = Fault::Format("invalid patch format of primitive list");

type Object = Map<String, Value>;

/// Merges a patch into an object of the schema's root type.
pub(super) fn merge(schema: &Schema, original: Object, patch: Object) -> Result<Object, Fault> {
    Merger { schema }.map(original, patch, Place::Root)
}

/// Which type the values at hand have.
#[derive(Clone, Copy)]
enum Place<'s> {
    Root,
    Item(&'s Item),
    /// No schema says more.
    Free,
}

/// How a field merges.
struct Rule<'s> {
    place: Place<'s>,
    strategy: &'s str,
    merge_key: &'s str,
}

struct Merger<'s> {
    schema: &'s Schema,
}

impl<'s> Merger<'s> {
    fn map(&self, mut original: Object, mut patch: Object, place: Place<'s>) -> Result<Object, Fault> {
        if let Some(directive) = patch.get(DIRECTIVE).cloned() {
            return directed(&directive, patch);
        }
        retain_keys(&mut original, &mut patch)?;
        self.set_orders(&mut original, &mut patch, place)?;
        for (key, value) in patch {
            match key.strip_prefix(DELETE_FROM_LIST) {
                Some(rest) => {
                    let key = rest.strip_prefix('/').ok_or(BAD_DELETE)?;
                    self.delete_from(&mut original, key, value, place)?;
                }
                None => self.field(&mut original, key, value, place)?,
            }
        }
        Ok(original)
    }

    fn field(&self, original: &mut Object, key: String, patch: Value, place: Place<'s>) -> Result<(), Fault> {
        let before = original.remove(&key);
        if patch.is_null() {
            return Ok(());
        }
        let value = match (before, patch) {
            (Some(Value::Object(before)), Value::Object(patch)) => {
                let rule = self.rule(place, &key)?;
                let replaced = rule.strategy == "replace";
                Some(Value::Object(if replaced { patch } else { self.map(before, patch, rule.place)? }))
            }
            (Some(Value::Array(before)), Value::Array(patch)) => {
                let rule = self.list_rule(place, &key)?;
                let merges = rule.strategy == "merge";
                Some(Value::Array(if merges { self.list(before, patch, &rule)? } else { patch }))
            }
            (before, mut patch) => {
                if before.is_none_or(|before| shown::go_type(&before) != shown::go_type(&patch)) {
                    discard_nulls(&mut patch);
                }
                without_directives(patch)
            }
        };
        if let Some(value) = value {
            original.insert(key, value);
        }
        Ok(())
    }

    /// `$deleteFromPrimitiveList/key`: takes scalars out of a list.
    fn delete_from(&self, original: &mut Object, key: &str, patch: Value, place: Place<'s>) -> Result<(), Fault> {
        if patch.is_null() {
            original.remove(key);
        }
        let (Some(Value::Array(before)), Value::Array(gone)) = (original.get_mut(key), patch) else { return Ok(()) };
        let rule = self.list_rule(place, key)?;
        match element_kind(&[before, &gone])? {
            None => {}
            Some(Kind::Scalar) => before.retain(|value| !gone.contains(value)),
            Some(Kind::Map) => *before = self.list(std::mem::take(before), gone, &rule)?,
        }
        Ok(())
    }

    fn list(&self, original: Vec<Value>, patch: Vec<Value>, rule: &Rule<'s>) -> Result<Vec<Value>, Fault> {
        let Some(kind) = element_kind(&[&original, &patch])? else { return Ok(original) };
        let (key, (original, patch, merged)) = match kind {
            Kind::Scalar => {
                let mut merged: Vec<Value> = Vec::new();
                for value in original.iter().chain(&patch) {
                    if !merged.contains(value) {
                        merged.push(value.clone());
                    }
                }
                ("", (original, patch, merged))
            }
            Kind::Map if rule.merge_key.is_empty() => {
                return Err(Fault::Other("cannot merge lists without merge key for struct".into()));
            }
            Kind::Map => {
                let (original, patch) = special_elements(original, patch, rule.merge_key)?;
                let merged = self.merge_elements(original.clone(), &patch, rule)?;
                (rule.merge_key, (original, patch, merged))
            }
        };
        let (patched, server_only) = partition(merged, &patch, key)?;
        enforce(patched, server_only, &patch, &original, key)
    }

    fn merge_elements(&self, mut original: Vec<Value>, patch: &[Value], rule: &Rule<'s>) -> Result<Vec<Value>, Fault> {
        for item in patch {
            let Value::Object(map) = item else { continue };
            let key = map.get(rule.merge_key).ok_or_else(|| Fault::no_merge_key(map, rule.merge_key))?;
            let same = |value: &&mut Value| value.get(rule.merge_key) == Some(key);
            match original.iter_mut().find(same) {
                Some(Value::Object(before)) => {
                    *before = self.map(std::mem::take(before), map.clone(), rule.place)?;
                }
                _ => original.push(item.clone()),
            }
        }
        Ok(original)
    }

    /// Merges the lists that have a `$setElementOrder`, and takes both out of the patch.
    fn set_orders(&self, original: &mut Object, patch: &mut Object, place: Place<'s>) -> Result<(), Fault> {
        let keys: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
        for directive in keys {
            let set = match patch.remove(&directive) {
                Some(Value::Array(set)) => set,
                other => return Err(Fault::bad_type("[]interface {}", &other.unwrap_or_default())),
            };
            let key = directive.strip_prefix(SET_ORDER).and_then(|rest| rest.strip_prefix('/')).ok_or(BAD_ORDER)?;
            self.set_order(original, patch, key, &set, place)?;
        }
        Ok(())
    }

    fn set_order(
        &self,
        original: &mut Object,
        patch: &mut Object,
        key: &str,
        set: &[Value],
        place: Place<'s>,
    ) -> Result<(), Fault> {
        let list = |value: Option<&Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items.clone())),
            Some(other) => Err(Fault::bad_type("[]interface {}", other)),
        };
        let (live, patched) = (list(original.get(key))?, list(patch.get(key))?);
        let rule = self.list_rule(place, key)?;
        if patch.get(key).is_none() && !set.is_empty() && live.is_none() {
            return Ok(());
        }
        order::check(patched.as_deref(), set, rule.merge_key)?;
        let order_before = live.clone().unwrap_or_default();
        element_kind(&[&order_before, patched.as_deref().unwrap_or_default()])?
            .ok_or_else(|| Fault::Other("no elements in any of the given slices".into()))?;
        let merged = match (live, patched) {
            (Some(live), None) => live,
            (None, Some(patched)) => patched.into_iter().filter_map(without_directives).collect(),
            (Some(live), Some(patched)) if rule.strategy == "merge" => self.list(live, patched, &rule)?,
            (Some(_), Some(patched)) => patched,
            (None, None) => return Ok(()),
        };
        let (patched, server_only) = partition(merged, set, rule.merge_key)?;
        let ordered = enforce(patched, server_only, set, &order_before, rule.merge_key)?;
        original.insert(key.to_owned(), Value::Array(ordered));
        patch.remove(key);
        Ok(())
    }

    fn rule(&self, place: Place<'s>, key: &str) -> Result<Rule<'s>, Fault> {
        let free = Rule { place: Place::Free, strategy: "", merge_key: "" };
        let of = match place {
            Place::Free => return Ok(free),
            Place::Root => self.schema.root(),
            Place::Item(item) => match &item.shape {
                Shape::Struct { of, .. } => self.schema.resolve(*of),
                Shape::Map { of, .. } => return Ok(Rule { place: Place::Item(of), ..free }),
                _ => return Ok(free),
            },
        };
        let field = of.field(key).ok_or_else(|| {
            let name = of.go_name();
            Fault::Other(format!("unable to find api field in struct {name} for the json field {key:?}"))
        })?;
        let strategy = field.patch_strategy.split(',').find(|s| *s != "retainKeys").unwrap_or_default();
        Ok(Rule { place: Place::Item(&field.item), strategy, merge_key: &field.merge_key })
    }

    /// The rule of a list's field, with the place of its items.
    fn list_rule(&self, place: Place<'s>, key: &str) -> Result<Rule<'s>, Fault> {
        let rule = self.rule(place, key)?;
        match rule.place {
            Place::Item(Item { shape: Shape::List { of, .. }, .. }) => Ok(Rule { place: Place::Item(of), ..rule }),
            Place::Item(Item { shape: Shape::Struct { .. }, .. }) => {
                Err(Fault::Other("expected slice or array type, but got: struct".into()))
            }
            _ => Ok(Rule { place: Place::Free, ..rule }),
        }
    }
}

/// `$patch` in an object.
fn directed(directive: &Value, mut patch: Object) -> Result<Object, Fault> {
    match directive.as_str() {
        Some("replace") => {
            patch.remove(DIRECTIVE);
            Ok(patch)
        }
        Some("delete") => Ok(Object::new()),
        _ => Err(unknown_directive(directive, &patch)),
    }
}

fn unknown_directive(directive: &Value, patch: &Object) -> Fault {
    Fault::Other(format!("unknown patch type: {} in map: {}", shown::value(directive), shown::map(patch)))
}

/// `$retainKeys`: takes fields away that it does not name; the patch may set no others.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Fault> {
    let keys = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(keys)) => keys,
        Some(_) => return Err(BAD_RETAIN),
    };
    let retained = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    let is_free = |key: &str| key.starts_with(DELETE_FROM_LIST) || key.starts_with(SET_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_free(key) && !retained(key)) {
        return Err(BAD_RETAIN);
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

/// `$patch` in items of a list: the list without what is deleted or replaced, and the patch without such items.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Fault> {
    let mut plain = Vec::new();
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = &item else { continue };
        match map.get(DIRECTIVE).map(|directive| (directive, directive.as_str())) {
            None => plain.push(item),
            Some((_, Some("delete"))) => {
                let key = map.get(merge_key).ok_or_else(|| Fault::no_merge_key(map, merge_key))?;
                original.retain(|value| value.get(merge_key) != Some(key));
            }
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("merge"))) => {
                return Err(Fault::Other("merging lists cannot yet be specified in the patch".into()));
            }
            Some((directive, _)) => return Err(unknown_directive(directive, map)),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Scalar,
    Map,
}

/// What all items are; `None` where there is none.
fn element_kind(lists: &[&[Value]]) -> Result<Option<Kind>, Fault> {
    let mut items = lists.iter().flat_map(|list| list.iter());
    let Some(first) = items.next() else { return Ok(None) };
    if first.is_array() {
        return Err(Fault::Other("lists of lists are not supported".into()));
    }
    if items.any(|item| shown::go_type(item) != shown::go_type(first)) {
        let lists: Vec<String> = lists.iter().map(|list| shown::list(list)).collect();
        return Err(Fault::Other(format!("list element types are not identical: [{}]", lists.join(" "))));
    }
    Ok(Some(if first.is_object() { Kind::Map } else { Kind::Scalar }))
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// A patch's value where nothing stood: objects with a `$patch` are left out.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept = map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}
