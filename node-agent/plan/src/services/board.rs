//! All services of a cluster and the host ports of a node's pods, kept up as objects change: only what a change touches
//! is worked out anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::ObjectName;
use api::k8s_openapi::api::core::v1::{Pod, Service};
use api::k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{Address, Frontend, Health, Place, Protocol, SERVICE_NAME, of_pod, of_service};

/// Who has frontends. Where two want the same address and port, the lesser has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Service(ObjectName),
    /// By uid.
    Pod(String),
}

/// What tells frontends apart.
pub type Key = (Address, Protocol);

/// What is to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Changes {
    pub frontends: Vec<Frontend>,
    pub gone: Vec<Key>,
}

impl Changes {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.gone.is_empty()
    }
}

/// The services, slices and pods that were seen, and the frontends made from them.
#[derive(Debug, Default)]
pub struct Board {
    place: Place,
    services: BTreeMap<ObjectName, Arc<Service>>,
    /// By service, then by the slice's name.
    slices: BTreeMap<ObjectName, BTreeMap<String, Arc<EndpointSlice>>>,
    /// The service of each slice.
    belongs: BTreeMap<ObjectName, ObjectName>,
    pods: BTreeMap<String, Arc<Pod>>,
    frontends: BTreeMap<Owner, BTreeMap<Key, Frontend>>,
    owners: BTreeMap<Key, BTreeSet<Owner>>,
    health: BTreeMap<ObjectName, Health>,
    touched: BTreeSet<Owner>,
}

impl Board {
    /// Where the node is. A move touches everything.
    pub fn place(&mut self, place: Place) {
        if self.place != place {
            self.place = place;
            self.touched.extend(self.services.keys().cloned().map(Owner::Service));
        }
    }

    /// A service as it is now; `None`: it is gone.
    pub fn service(&mut self, name: ObjectName, service: Option<Arc<Service>>) {
        match service {
            Some(service) => self.services.insert(name.clone(), service),
            None => self.services.remove(&name),
        };
        self.touched.insert(Owner::Service(name));
    }

    /// A slice as it is now; `None`: it is gone.
    pub fn slice(&mut self, name: ObjectName, slice: Option<Arc<EndpointSlice>>) {
        let service = slice.as_ref().and_then(|slice| slice.metadata.labels.as_ref()?.get(SERVICE_NAME).cloned());
        let service = service.map(|service| ObjectName { namespace: name.namespace.clone(), name: service });
        if let Some(before) = self.belongs.remove(&name) {
            if let Some(slices) = self.slices.get_mut(&before) {
                slices.remove(&name.name);
                if slices.is_empty() {
                    self.slices.remove(&before);
                }
            }
            self.touched.insert(Owner::Service(before));
        }
        if let Some((service, slice)) = service.zip(slice) {
            self.slices.entry(service.clone()).or_default().insert(name.name.clone(), slice);
            self.belongs.insert(name, service.clone());
            self.touched.insert(Owner::Service(service));
        }
    }

    /// The pods bound here, by uid.
    pub fn pods(&mut self, pods: &BTreeMap<String, Arc<Pod>>) {
        let differs = |uid: &&String| match (self.pods.get(*uid), pods.get(*uid)) {
            (Some(before), Some(after)) => !Arc::ptr_eq(before, after),
            _ => true,
        };
        let touched: BTreeSet<Owner> =
            self.pods.keys().chain(pods.keys()).filter(differs).cloned().map(Owner::Pod).collect();
        if !touched.is_empty() {
            self.touched.extend(touched);
            self.pods = pods.clone();
        }
    }

    /// What has changed since the last call: frontends whole, and those that are gone.
    pub fn changes(&mut self) -> Changes {
        let mut before: BTreeMap<Key, Option<Frontend>> = BTreeMap::new();
        for owner in std::mem::take(&mut self.touched) {
            let new: BTreeMap<Key, Frontend> = self.made(&owner).into_iter().map(|f| ((f.at, f.protocol), f)).collect();
            let old: Vec<Key> = self.frontends.get(&owner).into_iter().flat_map(|list| list.keys().copied()).collect();
            for key in old.iter().chain(new.keys()) {
                if !before.contains_key(key) {
                    before.insert(*key, self.shown(key).cloned());
                }
            }
            self.replace(owner, &old, new);
        }
        let mut changes = Changes::default();
        for (key, before) in before {
            match (before, self.shown(&key)) {
                (before, Some(after)) if before.as_ref() != Some(after) => changes.frontends.push(after.clone()),
                (Some(_), None) => changes.gone.push(key),
                _ => {}
            }
        }
        changes
    }

    /// The health ports of services, and what they answer. Up to date after [`Board::changes`].
    pub fn health(&self) -> &BTreeMap<ObjectName, Health> {
        &self.health
    }

    fn made(&mut self, owner: &Owner) -> Vec<Frontend> {
        let name = match owner {
            Owner::Pod(uid) => return self.pods.get(uid).map(|pod| of_pod(pod)).unwrap_or_default(),
            Owner::Service(name) => name,
        };
        let slices: Vec<&EndpointSlice> =
            self.slices.get(name).into_iter().flat_map(|slices| slices.values().map(|slice| &**slice)).collect();
        let service = self.services.get(name);
        match service.and_then(|service| Health::of(service, &slices, &self.place)) {
            Some(health) => self.health.insert(name.clone(), health),
            None => self.health.remove(name),
        };
        service.map(|service| of_service(service, &slices, &self.place)).unwrap_or_default()
    }

    fn replace(&mut self, owner: Owner, old: &[Key], new: BTreeMap<Key, Frontend>) {
        for key in old.iter().filter(|key| !new.contains_key(key)) {
            if let Some(owners) = self.owners.get_mut(key) {
                owners.remove(&owner);
                if owners.is_empty() {
                    self.owners.remove(key);
                }
            }
        }
        for key in new.keys() {
            self.owners.entry(*key).or_default().insert(owner.clone());
        }
        match new.is_empty() {
            true => self.frontends.remove(&owner),
            false => self.frontends.insert(owner, new),
        };
    }

    /// The frontend that has a key.
    fn shown(&self, key: &Key) -> Option<&Frontend> {
        self.frontends.get(self.owners.get(key)?.first()?)?.get(key)
    }
}
