//! Watches of the model: where each is in the log of its resource, and how the World hears of it.

use std::sync::Arc;

use api::Document;
use reconcile::controller::Parse;
use reconcile::{Change, Object, Resource, Selection, Watch};

use super::cluster::Cluster;

/// How far back an event may be told again.
const ECHO: u64 = 5;

/// A resource that is watched, and how far its watch has come.
pub(super) struct Source {
    pub(super) resource: Resource,
    pub(super) parse: Parse,
    /// How many changes it has told.
    pub(super) position: usize,
    /// It was found by discovery.
    found: bool,
}

impl Cluster {
    /// Begins the watches that name their resource.
    pub(super) fn watch_named(&mut self) {
        let watches: Vec<Watch> = self.watches().cloned().collect();
        for watch in watches {
            let Selection::One(resource) = watch.selection else { continue };
            let known = self.sources.iter_mut().find(|s| s.resource == resource);
            match known {
                Some(known) if !watch.metadata_only => known.parse = watch.parse,
                Some(_) => {}
                None => self.sources.push(Source { resource, parse: watch.parse, position: 0, found: false }),
            }
        }
    }

    fn watches(&self) -> impl Iterator<Item = &Watch> {
        self.runners.iter().flat_map(|r| &r.watches)
    }

    fn keep(&mut self, resource: &Resource) {
        let covering: Vec<Watch> = self.watches().filter(|w| w.covers(resource)).cloned().collect();
        covering.iter().for_each(|w| self.world.keep(resource, w.indexes));
    }

    /// Lists everything and watches from there, as after a crash.
    pub(super) fn rewatch(&mut self) {
        self.sources.retain(|s| !s.found);
        self.find_new();
        for place in 0..self.sources.len() {
            if let Some(resource) = self.sources.get(place).map(|s| s.resource.clone()) {
                self.keep(&resource);
                self.list(place, self.server.said(&resource));
            }
        }
    }

    /// What discovery would say now.
    fn served(&self) -> Vec<Resource> {
        let named = self.sources.iter().filter(|s| !s.found).map(|s| s.resource.clone());
        let mut served: Vec<Resource> = named.chain(self.server.served.iter().cloned()).collect();
        served.sort();
        served.dedup();
        served
    }

    fn watches_everything(&self, resource: &Resource) -> bool {
        let everything = |w: &&Watch| matches!(w.selection, Selection::Everything { .. });
        self.watches().filter(everything).any(|w| w.covers(resource))
    }

    fn is_new(&self, resource: &Resource) -> bool {
        !self.sources.iter().any(|s| s.resource == *resource) && self.watches_everything(resource)
    }

    /// Whether discovery has changed since it was read.
    pub(super) fn undiscovered(&self) -> bool {
        let served = &self.server.served;
        served.iter().any(|r| self.is_new(r)) || self.sources.iter().any(|s| s.found && !served.contains(&s.resource))
    }

    fn find_new(&mut self) -> Vec<usize> {
        let new: Vec<Resource> = self.server.served.iter().filter(|r| self.is_new(r)).cloned().collect();
        let first = self.sources.len();
        for resource in new {
            let parse = Watch::metadata_of(resource.clone()).parse;
            self.sources.push(Source { resource, parse, position: 0, found: true });
        }
        self.world.discovered(self.served());
        (first..self.sources.len()).collect()
    }

    /// Reads discovery: new resources are listed, and what is no longer served is forgotten.
    pub(super) fn discover(&mut self) {
        let served = &self.server.served;
        let gone = self.sources.iter().filter(|s| s.found && !served.contains(&s.resource));
        for resource in gone.map(|s| s.resource.clone()).collect::<Vec<_>>() {
            self.sources.retain(|s| s.resource != resource);
            let changes = self.world.forget(&resource);
            changes.iter().for_each(|c| self.tell(c));
        }
        for place in self.find_new() {
            if let Some(resource) = self.sources.get(place).map(|s| s.resource.clone()) {
                self.keep(&resource);
                self.list(place, self.server.said(&resource));
            }
        }
    }

    /// The list of a resource as it was after so many changes.
    fn list(&mut self, place: usize, count: usize) {
        let Some(source) = self.sources.get_mut(place) else { return };
        source.position = count;
        let (resource, parse) = (source.resource.clone(), source.parse);
        let read = |o: &Document| parse(&o.to_bytes()).ok();
        let objects: Vec<Arc<dyn Object>> =
            self.server.list_after(&resource, count).into_iter().filter_map(read).collect();
        // The list is as of the moment before the next change of the resource.
        let next = self.server.nth(&resource, count).map(|said| said.revision.saturating_sub(1));
        let revision = next.unwrap_or(self.server.revision());
        let changes = self.world.listed(&resource, objects, revision, self.now);
        changes.iter().for_each(|c| self.tell(c));
    }

    pub(super) fn tell(&mut self, change: &Change) {
        for runner in &mut self.runners {
            runner.hear(change, &self.world);
        }
    }

    /// Delivers the next event of a watch, or breaks it.
    pub(super) fn deliver(&mut self, place: usize) {
        let Some(source) = self.sources.get(place) else { return };
        let (position, end) = (source.position, self.server.said(&source.resource));
        if self.happens(self.chaos.relist) {
            let ahead = u64::try_from(end.saturating_sub(position)).unwrap_or_default();
            let skipped = usize::try_from(self.random(ahead + 1)).unwrap_or_default();
            return self.list(place, position + skipped);
        }
        self.say(place, position);
        if let Some(source) = self.sources.get_mut(place) {
            source.position = position + 1;
        }
        if self.happens(self.chaos.doubled) {
            let back = usize::try_from(self.random(ECHO)).unwrap_or_default();
            self.say(place, position.saturating_sub(back));
        }
    }

    fn say(&mut self, place: usize, number: usize) {
        let Some(source) = self.sources.get(place) else { return };
        let Some(said) = self.server.nth(&source.resource, number) else { return };
        let Ok(object) = (source.parse)(&said.object.to_bytes()) else { return };
        let (resource, gone) = (source.resource.clone(), said.gone);
        let changes = match gone {
            true => self.world.said_gone(&resource, object.as_ref()).into_iter().collect(),
            false => self.world.said(&resource, object, self.now),
        };
        changes.iter().for_each(|c| self.tell(c));
    }

    /// How an object of a watched resource is read.
    pub(super) fn reading(&self, resource: &Resource) -> Option<Parse> {
        self.sources.iter().find(|s| s.resource == *resource).map(|s| s.parse)
    }

    /// What discovery says to somebody who asks.
    pub(super) fn discovery(&self) -> Vec<Resource> {
        self.served()
    }
}
