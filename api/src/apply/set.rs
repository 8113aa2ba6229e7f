//! Sets of paths to fields (`sigs.k8s.io/structured-merge-diff/fieldpath`), and their form on the wire, FieldsV1.

use serde_json::{Map, Value};

use super::element::Element;

/// A set of paths. A path may be a member while longer ones with the same beginning are, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// Sorted.
    members: Vec<Element>,
    /// Sorted, none of them empty.
    children: Vec<(Element, Set)>,
}

impl Set {
    /// Paths of names, such as `metadata.labels`.
    pub(super) fn of_names(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<Element> = path.split('.').map(Element::field).collect();
            set.insert(&path);
        }
        set
    }

    /// Adds a path. The empty path (the whole object) has no owner and is not added.
    pub(super) fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => self.add(last.clone()),
            [first, rest @ ..] => match self.find(first) {
                Ok(at) => self.children[at].1.insert(rest),
                Err(at) => {
                    let mut below = Self::default();
                    below.insert(rest);
                    self.children.insert(at, (first.clone(), below));
                }
            },
        }
    }

    /// Makes an element a member.
    pub(super) fn add(&mut self, element: Element) {
        if let Err(at) = self.members.binary_search(&element) {
            self.members.insert(at, element);
        }
    }

    /// Adds paths below an element.
    pub(super) fn add_below(&mut self, element: Element, below: Self) {
        match self.find(&element) {
            _ if below.is_empty() => {}
            Ok(at) => self.children[at].1.absorb(below),
            Err(at) => self.children.insert(at, (element, below)),
        }
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        self.children.binary_search_by(|(own, _)| own.cmp(element))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Whether an element is a member.
    pub(super) fn has(&self, element: &Element) -> bool {
        self.members.binary_search(element).is_ok()
    }

    /// The paths below an element.
    pub(super) fn below(&self, element: &Element) -> Option<&Set> {
        self.find(element).ok().map(|at| &self.children[at].1)
    }

    /// The members, and what is below which element.
    pub(super) fn parts(&self) -> (&[Element], &[(Element, Set)]) {
        (&self.members, &self.children)
    }

    /// Adds all paths of `other`.
    pub(super) fn absorb(&mut self, other: Self) {
        other.members.into_iter().for_each(|member| self.add(member));
        other.children.into_iter().for_each(|(element, below)| self.add_below(element, below));
    }

    /// Takes the paths of `other` out.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.take_out(other, false);
    }

    fn take_out(&mut self, other: &Self, recursive: bool) {
        if other.is_empty() {
            return;
        }
        self.members.retain(|member| !other.has(member));
        self.children.retain_mut(|(element, below)| {
            if recursive && other.has(element) {
                return false;
            }
            if let Some(gone) = other.below(element) {
                below.take_out(gone, recursive);
            }
            !below.is_empty()
        });
    }

    /// Whether a path is in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let below = |(element, set): &(Element, Self)| other.below(element).is_some_and(|other| set.meets(other));
        self.members.iter().any(|member| other.has(member)) || self.children.iter().any(below)
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.absorb(other.clone());
        out
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let members = self.members.iter().filter(|member| other.has(member)).cloned().collect();
        let both = self.children.iter().filter_map(|(element, set)| {
            let set = set.intersection(other.below(element)?);
            (!set.is_empty()).then(|| (element.clone(), set))
        });
        Self { members, children: both.collect() }
    }

    /// Without the paths of `other`.
    pub(super) fn difference(mut self, other: &Self) -> Self {
        self.take_out(other, false);
        self
    }

    /// Without the paths of `other` and all below them.
    pub(super) fn recursive_difference(mut self, other: &Self) -> Self {
        self.take_out(other, true);
        self
    }

    /// Every path, members before longer ones.
    pub(super) fn paths(&self) -> Vec<Vec<Element>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Element>, out: &mut Vec<Vec<Element>>) {
        for member in &self.members {
            let mut path = prefix.clone();
            path.push(member.clone());
            out.push(path);
        }
        for (element, set) in &self.children {
            prefix.push(element.clone());
            set.collect(prefix, out);
            prefix.pop();
        }
    }

    /// As FieldsV1.
    pub(super) fn encode(&self) -> Value {
        let mut map: Map<String, Value> =
            self.members.iter().map(|member| (member.encode(), Value::Object(Map::new()))).collect();
        for (element, set) in &self.children {
            let mut below = set.encode();
            if let (true, Value::Object(below)) = (self.has(element), &mut below) {
                below.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(element.encode(), below);
        }
        Value::Object(map)
    }

    /// From FieldsV1; `None` where it is none.
    pub(super) fn decode(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, below) in value.as_object()?.iter().filter(|(key, _)| *key != ".") {
            let element = Element::decode(key)?;
            let map = below.as_object()?;
            if map.is_empty() || map.contains_key(".") {
                set.add(element.clone());
            }
            set.add_below(element, Self::decode(below)?);
        }
        Some(set)
    }
}

/// A path as errors show it: `.spec.containers[name="c"].image`.
pub(super) fn shown(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{Element, Set};
    use crate::apply::element::Scalar;

    fn element() -> impl Strategy<Value = Element> {
        let scalar = || {
            prop_oneof![
                any::<i64>().prop_map(|n| Scalar(n.into())),
                "[a-z.:\"]{0,4}".prop_map(|s| Scalar(s.into())),
                any::<bool>().prop_map(|b| Scalar(b.into())),
            ]
        };
        prop_oneof![
            "[a-zA-Z./-]{1,4}".prop_map(Element::Field),
            proptest::collection::btree_map("[a-z]{1,3}", scalar(), 1..3)
                .prop_map(|fields| Element::Key(fields.into_iter().collect())),
            scalar().prop_map(Element::Value),
            (0i64..9).prop_map(Element::Index),
        ]
    }

    fn set() -> impl Strategy<Value = Set> {
        let path = proptest::collection::vec(element(), 1..4);
        proptest::collection::vec(path, 0..8).prop_map(|paths| {
            let mut set = Set::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn the_wire_form_reads_back(set in set()) {
            prop_assert_eq!(Set::decode(&set.encode()), Some(set));
        }

        #[test]
        fn sets_obey_the_laws_of_sets(a in set(), b in set()) {
            let (union, common) = (a.union(&b), a.intersection(&b));
            prop_assert_eq!(&union.clone().difference(&b).union(&common), &a);
            prop_assert!(a.clone().difference(&union).is_empty());
            prop_assert_eq!(a.meets(&b), !common.is_empty());
            prop_assert_eq!(union.paths().len() + common.paths().len(), a.paths().len() + b.paths().len());
        }
    }

    #[test]
    fn a_parent_that_is_a_member_is_a_dot() {
        let mut set = Set::of_names(&["data", "data.k"]);
        set.insert(&[Element::field("l"), Element::Value(Scalar("x".into()))]);
        assert_eq!(set.encode(), json!({"f:data": {".": {}, "f:k": {}}, "f:l": {"v:\"x\"": {}}}));
        assert_eq!(
            set.clone().recursive_difference(&Set::of_names(&["data"])).encode(),
            json!({"f:l": {"v:\"x\"": {}}})
        );
        assert_eq!(set.difference(&Set::of_names(&["data"])).encode()["f:data"], json!({"f:k": {}}));
    }
}
