//! Objects by the value of one field: pods by their node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::item::Item;

/// The index of one resource; empty where its kind names no field.
#[derive(Default)]
pub(super) struct Index {
    field: Option<&'static str>,
    by_value: HashMap<Box<str>, BTreeMap<Bytes, Arc<Item>>>,
}

impl Index {
    /// Of these objects.
    pub(super) fn of<'a>(field: Option<&'static str>, items: impl Iterator<Item = &'a Arc<Item>>) -> Self {
        let mut index = Self { field, ..Self::default() };
        items.for_each(|item| index.add(item));
        index
    }

    /// An object that is there now.
    pub(super) fn add(&mut self, item: &Arc<Item>) {
        let Some(value) = self.field.and_then(|field| item.field(field)) else { return };
        self.by_value.entry(value.into()).or_default().insert(item.key.clone(), Arc::clone(item));
    }

    /// An object that is no more, or no more as it was.
    pub(super) fn remove(&mut self, item: &Item) {
        let Some(value) = self.field.and_then(|field| item.field(field)) else { return };
        if let Some(items) = self.by_value.get_mut(value) {
            items.remove(&item.key);
            if items.is_empty() {
                self.by_value.remove(value);
            }
        }
    }

    /// The objects with that value whose keys begin with `prefix`, in order; `None` where the field has no index.
    pub(super) fn find(&self, field: &str, value: &str, prefix: &str) -> Option<Vec<Arc<Item>>> {
        if self.field != Some(field) {
            return None;
        }
        let Some(items) = self.by_value.get(value) else { return Some(Vec::new()) };
        let from = Bytes::copy_from_slice(prefix.as_bytes());
        let range = items.range(from..).take_while(|(key, _)| key.starts_with(prefix.as_bytes()));
        Some(range.map(|(_, item)| Arc::clone(item)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, Item};
    use crate::row::Strategy;
    use bytes::Bytes;
    use serde_json::json;
    use std::sync::Arc;
    use store::Entry;

    fn pod(name: &str, node: &str) -> Arc<Item> {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": {"nodeName": node}});
        let key = Bytes::from(format!("/registry/pods/a/{name}"));
        let entry = Entry { key, value: pod.to_string().into(), create_revision: 1, mod_revision: 2, lease: 0 };
        let strategy = Strategy::BuiltIn(api::kinds::rules("", "Pod"));
        Arc::new(Item::of(&entry, &strategy).expect("an object"))
    }

    #[test]
    fn a_pod_is_found_by_the_node_it_is_on_now() {
        let (one, two) = (pod("one", "n"), pod("two", ""));
        let field = api::kinds::rules("", "Pod").index_field();
        let mut index = Index::of(field, [&one, &two].into_iter());
        let names = |index: &Index, node: &str, prefix: &str| {
            let found = index.find("spec.nodeName", node, prefix).expect("an index");
            found.iter().map(|item| item.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&index, "n", "/registry/pods/"), ["one"]);
        assert_eq!(names(&index, "n", "/registry/pods/b/"), Vec::<String>::new());
        index.remove(&two);
        index.add(&pod("two", "n"));
        assert_eq!(names(&index, "n", "/registry/pods/a/"), ["one", "two"]);
        assert_eq!(names(&index, "", "/registry/pods/"), Vec::<String>::new());
        assert!(index.find("status.phase", "Running", "").is_none());
    }
}
