//! The tables of one instance: what stands in the kernel, and the transaction that turns it into what should.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ipnet::IpNet;

use super::rules::{self, Class, Elements, Family};
use super::wire::{Attributes, Batch, Kind, NLM_F_CREATE};
use crate::Frontend;

/// Both families' tables of an instance.
#[derive(Debug)]
pub struct Tables {
    families: Vec<Table>,
}

impl Tables {
    /// Nothing is sent before the first [`Tables::apply`]; rules of an earlier process stay in force until then.
    pub fn new(instance: &str, cluster_cidrs: &[IpNet], pod_cidrs: &[IpNet]) -> Self {
        let table = |family| Table::new(instance, family, cluster_cidrs, pod_cidrs);
        Self { families: vec![table(Family::V4), table(Family::V6)] }
    }

    /// Makes the kernel's rules say exactly these frontends: only differences are sent, in one transaction a family.
    pub fn apply(&mut self, frontends: &[Frontend]) -> io::Result<()> {
        self.families.iter_mut().try_for_each(|table| table.apply(frontends))
    }

    /// Removes an instance's tables.
    pub fn remove(instance: &str) -> io::Result<()> {
        for family in [Family::V4, Family::V6] {
            let mut batch = Batch::new(family.number());
            delete_table(&mut batch, &table_name(instance));
            batch.commit()?;
        }
        Ok(())
    }
}

fn table_name(instance: &str) -> String {
    format!("trimtab-{instance}")
}

/// Deleting is idempotent this way: the table is made first if it is not there.
fn delete_table(batch: &mut Batch, name: &str) {
    let attributes = Attributes::default().string(1, name);
    batch.message(Kind::NewTable, NLM_F_CREATE, &attributes);
    batch.message(Kind::DelTable, 0, &attributes);
}

#[derive(Debug)]
struct Table {
    name: String,
    family: Family,
    cluster: Vec<IpNet>,
    pods: Vec<IpNet>,
    /// What was last committed; `None` before the first commit.
    current: Option<Elements>,
    classes: BTreeSet<Class>,
}

impl Table {
    fn new(instance: &str, family: Family, cluster: &[IpNet], pods: &[IpNet]) -> Self {
        let of_family = |list: &[IpNet]| list.iter().filter(|net| family.has(net.addr())).copied().collect();
        Self {
            name: table_name(instance),
            family,
            cluster: of_family(cluster),
            pods: of_family(pods),
            current: None,
            classes: BTreeSet::new(),
        }
    }

    fn apply(&mut self, frontends: &[Frontend]) -> io::Result<()> {
        let wanted = Elements::of(self.family, frontends);
        let mut batch = Batch::new(self.family.number());
        let mut classes = std::mem::take(&mut self.classes);
        let current = self.current.take();
        if current.is_none() {
            classes.clear();
            delete_table(&mut batch, &self.name);
            rules::base(&mut batch, &self.name, self.family, &self.cluster, &self.pods);
        }
        for class in wanted.classes().difference(&classes.clone()) {
            rules::class(&mut batch, &self.name, self.family, *class);
            classes.insert(*class);
        }
        let before = current.unwrap_or_default();
        for (set, new) in wanted.sets() {
            difference(&mut batch, &self.name, set, before.set(set), new);
        }
        // On an error the next apply starts from nothing, which is always right.
        batch.commit()?;
        (self.current, self.classes) = (Some(wanted), classes);
        Ok(())
    }
}

/// Deletes what is gone or has another value, then adds what is new.
fn difference(
    batch: &mut Batch,
    table: &str,
    set: &str,
    before: &BTreeMap<Vec<u8>, rules::Value>,
    after: &BTreeMap<Vec<u8>, rules::Value>,
) {
    let stale: Vec<_> = before.iter().filter(|(key, value)| after.get(*key) != Some(*value)).collect();
    let fresh: Vec<_> = after.iter().filter(|(key, value)| before.get(*key) != Some(*value)).collect();
    let keys: Vec<_> = stale.iter().map(|(key, _)| super::expression::element(key)).collect();
    let elements: Vec<_> = fresh.iter().map(|(key, value)| value.element(key)).collect();
    batch.elements(Kind::DelElement, table, set, &keys);
    batch.elements(Kind::NewElement, table, set, &elements);
}
