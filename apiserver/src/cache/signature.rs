//! Which labels objects have, in a few words: a list whose selector nothing matches ends at once, and one that few objects
//! match passes over all others without looking at them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use api::LabelSelector;
use api::selector::{LabelRequirement, Operator};

use super::item::Item;

/// A key, or a key with its value, by a number that another one hardly shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(u64);

impl Mark {
    fn of(what: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }

    fn key(key: &str) -> Self {
        Self::of(key)
    }

    fn pair(key: &str, value: &str) -> Self {
        Self::of((key, value))
    }

    /// Two bits of a word.
    fn bits(self) -> u64 {
        let bit = |of: u64| 1 << (of & 63);
        bit(self.0) | bit(self.0 >> 32)
    }
}

fn marks(item: &Item) -> impl Iterator<Item = Mark> {
    item.labels.iter().flat_map(|(key, value)| [Mark::key(key), Mark::pair(key, value)])
}

/// The bits of all marks of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signature(u64);

impl Signature {
    pub(super) fn of(item: &Item) -> Self {
        Self(marks(item).fold(0, |bits, mark| bits | mark.bits()))
    }
}

/// How many objects have each mark.
#[derive(Default)]
pub(super) struct Marks(HashMap<u64, u32>);

impl Marks {
    /// Of these objects.
    pub(super) fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let mut counts = Self::default();
        items.for_each(|item| counts.add(item));
        counts
    }

    /// An object that is there now.
    pub(super) fn add(&mut self, item: &Item) {
        marks(item).for_each(|mark| *self.0.entry(mark.0).or_default() += 1);
    }

    /// An object that is no more, or no more as it was.
    pub(super) fn remove(&mut self, item: &Item) {
        for Mark(mark) in marks(item) {
            match self.0.get_mut(&mark) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.0.remove(&mark)),
            }
        }
    }
}

/// What a selector needs: of each of these lists one.
pub(super) struct Needed(Vec<Vec<Mark>>);

impl Needed {
    /// By a selector. Requirements that an object without the label may meet need nothing.
    pub(super) fn by(selector: &LabelSelector) -> Self {
        let one = |r: &LabelRequirement| match r.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => {
                Some(r.values.iter().map(|value| Mark::pair(&r.key, value)).collect())
            }
            Operator::Exists | Operator::GreaterThan | Operator::LessThan => Some(vec![Mark::key(&r.key)]),
            Operator::NotEquals | Operator::NotIn | Operator::DoesNotExist => None,
        };
        Self(selector.requirements().iter().filter_map(one).collect())
    }

    /// Whether any object may be selected. False is certain.
    pub(super) fn may_be_in(&self, there: &Marks) -> bool {
        self.0.iter().all(|any| any.iter().any(|mark| there.0.contains_key(&mark.0)))
    }

    /// Whether an object may be selected. False is certain.
    pub(super) fn may_be(&self, object: Signature) -> bool {
        self.0.iter().all(|any| any.iter().any(|mark| object.0 & mark.bits() == mark.bits()))
    }
}

#[cfg(test)]
mod tests {
    use api::LabelSelector;
    use serde_json::{Value, json};
    use store::Entry;

    use super::{Item, Marks, Needed, Signature};
    use crate::row::Strategy;

    fn item(labels: Value) -> Item {
        let object = json!({"kind": "C", "apiVersion": "v1", "metadata": {"name": "n", "labels": labels}});
        let (key, value) = (bytes::Bytes::from_static(b"/registry/c/n"), object.to_string().into());
        let entry = Entry { key, value, create_revision: 1, mod_revision: 2, lease: 0 };
        Item::of(&entry, &Strategy::BuiltIn(&api::kinds::Plain)).expect("an object")
    }

    fn needed(text: &str) -> (LabelSelector, Needed) {
        let selector = LabelSelector::parse(text).expect("a selector");
        let needed = Needed::by(&selector);
        (selector, needed)
    }

    #[test]
    fn whatever_a_selector_selects_may_be() {
        let numbers = ["", "1", "2", "30", "x"];
        let mut objects = vec![item(json!({}))];
        for a in numbers {
            objects.push(item(json!({"a": a})));
            objects.extend(numbers.map(|b| item(json!({"a": a, "b": b}))));
        }
        let selectors =
            ["", "a", "!a", "a=1", "a!=1", "a in (1,2)", "a notin (1,2)", "a>1", "a<2,b", "a=1,b=2", "b,!a"];
        for text in selectors {
            let (selector, needed) = needed(text);
            for object in objects.iter().filter(|object| selector.matches(|key| object.label(key))) {
                assert!(needed.may_be(Signature::of(object)), "{text}: {object:?}");
                assert!(needed.may_be_in(&Marks::of([object].into_iter())), "{text}: {object:?}");
            }
        }
    }

    #[test]
    fn most_of_what_is_not_selected_is_passed_over() {
        let (_, needed) = needed("app=nobody");
        let object = |n: usize| Signature::of(&item(json!({"app": format!("app-{n}"), "tier": format!("t{}", n % 7)})));
        let allowed = (0..2_000).filter(|n| needed.may_be(object(*n))).count();
        assert!(allowed < 200, "{allowed} of 2000");
    }

    #[test]
    fn what_nobody_has_any_more_is_not_there() {
        let (one, two) = (item(json!({"a": "1"})), item(json!({"a": "1", "b": "2"})));
        let mut there = Marks::of([&one, &two].into_iter());
        let may =
            |there: &Marks| ["a=1", "a", "a=1,b=2", "c", "a in (1,3)"].map(|text| needed(text).1.may_be_in(there));
        assert_eq!(may(&there), [true, true, true, false, true]);
        there.remove(&two);
        assert_eq!(may(&there), [true, true, false, false, true]);
        there.remove(&one);
        assert_eq!(may(&there), [false; 5]);
        assert!(there.0.is_empty());
    }
}
