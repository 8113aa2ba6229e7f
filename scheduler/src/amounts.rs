//! Amounts of resources: what nodes have and pods request (`k8s.io/component-helpers/resource`).

use std::collections::BTreeMap;

use api::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// What a container that requests no cpu counts for when nodes are scored.
const UNREQUESTED_CPU_MILLI: i64 = 100;
/// What a container that requests no memory counts for when nodes are scored.
const UNREQUESTED_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts of the resources that fit is decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Amounts {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub storage_bytes: i64,
    /// Other resources by name: `example.com/gpu`, `hugepages-2Mi`.
    pub others: BTreeMap<String, i64>,
}

impl Amounts {
    /// Reads a resource list. An amount that cannot be read counts as none.
    pub fn of(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut amounts = Self::default();
        for (name, text) in list.into_iter().flatten() {
            amounts.set(name, text);
        }
        amounts
    }

    fn set(&mut self, name: &str, text: &Text) {
        let Ok(quantity) = Quantity::parse(&text.0) else { return };
        match name {
            "cpu" => self.cpu_milli = quantity.milli_value(),
            "memory" => self.memory_bytes = quantity.value(),
            "ephemeral-storage" => self.storage_bytes = quantity.value(),
            "pods" => {}
            other => {
                self.others.insert(other.to_owned(), quantity.value());
            }
        }
    }

    /// Adds amounts.
    pub fn add(&mut self, more: &Self) {
        self.merge(more, i64::saturating_add);
    }

    fn raise_to(&mut self, least: &Self) {
        self.merge(least, i64::max);
    }

    fn merge(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.cpu_milli = with(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = with(self.memory_bytes, other.memory_bytes);
        self.storage_bytes = with(self.storage_bytes, other.storage_bytes);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = with(*mine, *amount);
        }
    }

    /// Whether nothing is asked for.
    pub fn is_nothing(&self) -> bool {
        self.cpu_milli == 0
            && self.memory_bytes == 0
            && self.storage_bytes == 0
            && self.others.values().all(|a| *a == 0)
    }
}

/// What a pod requests: the sum of its containers and sidecars, or what its init containers need at one time if that
/// is more; pod-level requests instead where they are set; and the overhead of its runtime class.
pub fn requested(spec: &PodSpec) -> Amounts {
    requested_with(spec, container)
}

/// The same, where containers that request no cpu or memory count for a default: what nodes are scored by.
pub fn scored(spec: &PodSpec) -> Amounts {
    requested_with(spec, |c| {
        let mut amounts = container(c);
        let names =
            |name: &str| c.resources.as_ref().and_then(|r| r.requests.as_ref()).is_some_and(|r| r.contains_key(name));
        if !names("cpu") {
            amounts.cpu_milli = UNREQUESTED_CPU_MILLI;
        }
        if !names("memory") {
            amounts.memory_bytes = UNREQUESTED_MEMORY_BYTES;
        }
        amounts
    })
}

fn container(container: &Container) -> Amounts {
    Amounts::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

fn requested_with(spec: &PodSpec, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut total = Amounts::default();
    spec.containers.iter().for_each(|c| total.add(&of(c)));
    let (mut sidecars, mut at_once) = (Amounts::default(), Amounts::default());
    for init in spec.init_containers.iter().flatten() {
        let amounts = of(init);
        if init.restart_policy.as_deref() == Some("Always") {
            total.add(&amounts);
            sidecars.add(&amounts);
            at_once.raise_to(&sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            with_sidecars.add(&amounts);
            at_once.raise_to(&with_sidecars);
        }
    }
    total.raise_to(&at_once);
    for (name, text) in spec.resources.iter().filter_map(|r| r.requests.as_ref()).flatten() {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            total.set(name, text);
        }
    }
    total.add(&Amounts::of(spec.overhead.as_ref()));
    total
}
