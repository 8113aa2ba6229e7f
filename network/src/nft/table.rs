//! The tables of one instance: what stands in the kernel, and the transactions that turn it into what should.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use ipnet::IpNet;

use super::elements::{self, BEHIND, Class, Element, Ranges, SHARED, Value, arranged};
use super::family::Family;
use super::rules;
use crate::conntrack::Served;
use crate::nfnetlink::{Attributes, Batch, Channel, Kind, NLM_F_CREATE};
use crate::{Frontend, FrontendKey};

/// Chains that no frontend leads to any more, and that are kept for those to come.
const IDLE_CHAINS: usize = 64;
/// Frontends whose elements are in memory at the same time when all are written.
const AT_ONCE: usize = 256;

/// Both families' tables of an instance.
#[derive(Debug)]
pub(crate) struct Tables {
    families: Vec<Table>,
    /// What there should be, each with its endpoints in their places.
    frontends: HashMap<FrontendKey, Frontend>,
    channel: Channel,
}

/// A frontend as it was and as it is to be.
type Change = (Option<Frontend>, Option<Frontend>);

impl Tables {
    /// Nothing is sent before the first change; rules of an earlier process stay in force until then.
    pub(crate) fn new(instance: &str, cluster_cidrs: &[IpNet], pod_cidrs: &[IpNet], service_cidrs: &[IpNet]) -> Self {
        let table = |family: Family| {
            let of = |list: &[IpNet]| list.iter().filter(|net| family.has(net.addr())).copied().collect();
            let ranges = Ranges { cluster: of(cluster_cidrs), pods: of(pod_cidrs), services: of(service_cidrs) };
            Table::new(instance, family, ranges)
        };
        Self {
            families: vec![table(Family::V4), table(Family::V6)],
            frontends: HashMap::new(),
            channel: Channel::default(),
        }
    }

    /// Makes the kernel's rules say exactly these frontends. Returns what connections may have been touched.
    pub(crate) fn set(&mut self, frontends: Vec<Frontend>) -> io::Result<Served> {
        let wanted: HashSet<FrontendKey> = frontends.iter().map(Frontend::key).collect();
        let gone = self.frontends.keys().filter(|key| !wanted.contains(key)).copied().collect();
        self.change(frontends, gone)
    }

    /// Makes the kernel's rules say these frontends, and no longer those that are `gone`; all others stay. Only
    /// differences are sent. After an error the next call sends everything, in one transaction a family.
    pub(crate) fn change(&mut self, frontends: Vec<Frontend>, gone: Vec<FrontendKey>) -> io::Result<Served> {
        let mut changes: Vec<Change> = Vec::new();
        for key in gone {
            changes.extend(self.frontends.remove(&key).map(|before| (Some(before), None)));
        }
        for frontend in frontends {
            let before = self.frontends.get(&frontend.key());
            let after = arranged(frontend, before);
            if before != Some(&after) {
                let before = self.frontends.insert(after.key(), after.clone());
                changes.push((before, Some(after)));
            }
        }
        let all = self.families.iter().any(|table| !table.installed);
        let result = self.families.iter_mut().try_for_each(|table| match table.installed {
            true => table.change(&mut self.channel, &changes),
            false => table.install(&mut self.channel, self.frontends.values()),
        });
        if let Err(error) = result {
            self.families.iter_mut().for_each(|table| table.installed = false);
            return Err(error);
        }
        let gone = changes.iter().filter(|(_, after)| after.is_none()).filter_map(|(before, _)| before.as_ref());
        let gone = gone.map(Frontend::key);
        Ok(match all {
            true => Served::of(self.frontends.values(), gone),
            false => Served::of(changes.iter().filter_map(|(_, after)| after.as_ref()), gone),
        })
    }

    /// Removes an instance's tables.
    pub(crate) fn remove(instance: &str) -> io::Result<()> {
        for family in [Family::V4, Family::V6] {
            let mut batch = Batch::new(family.number());
            delete_table(&mut batch, &table_name(instance));
            Channel::default().commit(batch)?;
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
    ranges: Ranges,
    /// Whether the kernel has what the fields below say.
    installed: bool,
    /// The chains that there are, and how many elements lead to each.
    classes: HashMap<Class, usize>,
    /// How many frontends want each element of a shared set.
    shared: HashMap<(&'static str, Vec<u8>), usize>,
}

/// What a transaction does to the elements of each set.
#[derive(Default)]
struct Difference {
    stale: BTreeMap<&'static str, Vec<Element>>,
    fresh: BTreeMap<&'static str, Vec<Element>>,
}

impl Table {
    fn new(instance: &str, family: Family, ranges: Ranges) -> Self {
        let (classes, shared) = (HashMap::new(), HashMap::new());
        Self { name: table_name(instance), family, ranges, installed: false, classes, shared }
    }

    /// Everything anew, in one transaction.
    fn install<'a>(&mut self, channel: &mut Channel, frontends: impl Iterator<Item = &'a Frontend>) -> io::Result<()> {
        self.classes.clear();
        self.shared.clear();
        let mut batch = Batch::new(self.family.number());
        delete_table(&mut batch, &self.name);
        rules::base(&mut batch, &self.name, self.family, &self.ranges);
        let mut frontends = frontends.peekable();
        while frontends.peek().is_some() {
            let mut difference = Difference::default();
            for frontend in frontends.by_ref().take(AT_ONCE) {
                difference.add(elements::of(self.family, &self.ranges, frontend));
            }
            self.count(&mut difference);
            self.enter(&mut batch, &difference);
        }
        channel.commit(batch)?;
        self.installed = true;
        Ok(())
    }

    fn change(&mut self, channel: &mut Channel, changes: &[Change]) -> io::Result<()> {
        let of = |side: &Option<Frontend>| {
            side.as_ref().map(|frontend| elements::of(self.family, &self.ranges, frontend)).unwrap_or_default()
        };
        let mut difference = Difference::default();
        for (before, after) in changes {
            difference.replace(of(before), of(after));
        }
        self.installed = false;
        self.count(&mut difference);
        let mut batch = Batch::new(self.family.number());
        self.enter(&mut batch, &difference);
        channel.commit(batch)?;
        // A packet that was on its way to an endpoint's number finds it still: only now do the sets behind shrink.
        let mut batch = Batch::new(self.family.number());
        for set in BEHIND {
            let fresh = difference.fresh.get(set).map_or(&[][..], Vec::as_slice);
            let replaced: HashSet<&[u8]> = fresh.iter().map(|e| e.key.as_slice()).collect();
            let stale = difference.stale.get(set).into_iter().flatten();
            let stale = stale.filter(|e| !replaced.contains(e.key.as_slice())).map(Element::name);
            batch.elements(Kind::DelElement, &self.name, set, stale);
        }
        channel.commit(batch)?;
        self.installed = true;
        self.forget_chains(channel);
        Ok(())
    }

    /// Takes what several frontends want out of the difference, unless this is the first of them or was the last; counts
    /// how many lead to each chain.
    fn count(&mut self, difference: &mut Difference) {
        for set in SHARED {
            let (stale, fresh) = (difference.stale.remove(set), difference.fresh.remove(set));
            let mut before: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            let stale = stale.into_iter().flatten().map(|element| (element.key, -1));
            let fresh = fresh.into_iter().flatten().map(|element| (element.key, 1));
            for (key, by) in stale.chain(fresh) {
                let count = self.shared.entry((set, key.clone())).or_default();
                before.entry(key).or_insert(*count);
                *count = count.saturating_add_signed(by);
            }
            for (key, before) in before {
                let after = self.shared.get(&(*set, key.clone())).copied().unwrap_or(0);
                if after == 0 {
                    self.shared.remove(&(*set, key.clone()));
                }
                let element = Element { set, key, value: Value::None };
                match (before, after) {
                    (0, 1..) => difference.fresh.entry(set).or_default().push(element),
                    (1.., 0) => difference.stale.entry(set).or_default().push(element),
                    _ => {}
                }
            }
        }
        let class = |element: &Element| if let Value::Class(class) = element.value { Some(class) } else { None };
        for class in difference.stale.values().flatten().filter_map(class) {
            self.classes.entry(class).and_modify(|count| *count = count.saturating_sub(1));
        }
    }

    /// Adds what is new, and takes away or replaces what packets come to first.
    fn enter(&mut self, batch: &mut Batch, difference: &Difference) {
        for element in difference.fresh.values().flatten() {
            let Value::Class(class) = element.value else { continue };
            *self.classes.entry(class).or_insert_with(|| {
                rules::class(batch, &self.name, self.family, class);
                0
            }) += 1;
        }
        for (set, stale) in &difference.stale {
            let fresh = difference.fresh.get(set).map_or(&[][..], Vec::as_slice);
            let replaced: HashSet<&[u8]> = fresh.iter().map(|e| e.key.as_slice()).collect();
            let now = |element: &&Element| !BEHIND.contains(set) || replaced.contains(element.key.as_slice());
            batch.elements(Kind::DelElement, &self.name, set, stale.iter().filter(now).map(Element::name));
        }
        for (set, fresh) in &difference.fresh {
            batch.elements(Kind::NewElement, &self.name, set, fresh.iter().map(Element::whole));
        }
    }

    /// Deletes chains that nothing leads to, once they are many. Old kernels refuse that for a moment (EBUSY): then they
    /// go with the next change.
    fn forget_chains(&mut self, channel: &mut Channel) {
        let idle: Vec<Class> = self.classes.iter().filter(|(_, count)| **count == 0).map(|(class, _)| *class).collect();
        if idle.len() <= IDLE_CHAINS {
            return;
        }
        let mut batch = Batch::new(self.family.number());
        idle.iter().for_each(|class| rules::delete_chain(&mut batch, &self.name, &class.chain()));
        if channel.commit(batch).is_ok() {
            self.classes.retain(|_, count| *count > 0);
        }
    }
}

impl Difference {
    fn add(&mut self, elements: Vec<Element>) {
        for element in elements {
            self.fresh.entry(element.set).or_default().push(element);
        }
    }

    /// What one frontend's elements were and are.
    fn replace(&mut self, before: Vec<Element>, after: Vec<Element>) {
        let name = |element: &Element| (element.set, element.key.clone());
        let mut old: HashMap<_, Element> = before.into_iter().map(|element| (name(&element), element)).collect();
        for element in after {
            match old.get(&name(&element)) {
                Some(same) if *same == element => {
                    old.remove(&name(&element));
                }
                _ => self.fresh.entry(element.set).or_default().push(element),
            }
        }
        for element in old.into_values() {
            self.stale.entry(element.set).or_default().push(element);
        }
    }
}
