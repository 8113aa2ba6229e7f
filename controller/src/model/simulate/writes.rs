//! What must be true of every write, as things really are.

use std::collections::BTreeMap;

use api::Document;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Propagation, Resource, Target, selector};
use serde_json::Value;

use super::super::server::{Said, Server};

const COLLECTOR: &str = "garbage-collector-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Looks at the server's log as it grows.
#[derive(Default)]
pub(super) struct Watcher {
    seen: usize,
    /// The uids of owners that users deleted, when, and the uids of the dependents that are to outlive them.
    orphaned: BTreeMap<String, (u64, Vec<String>)>,
}

/// The revision that a Deployment or a ReplicaSet says it has.
pub(super) fn revision(meta: &ObjectMeta) -> Option<i64> {
    meta.annotations.as_ref()?.get(REVISION)?.parse().ok()
}

fn refers(object: &Document, uid: &str) -> bool {
    object.list_at("/metadata/ownerReferences").iter().any(|o| o["uid"] == uid)
}

/// Whether an object may have such an owner: one of its own namespace, or of none.
pub(super) fn reaches(owner: &Document, object: &Document) -> bool {
    owner.namespace().is_empty() || object.namespace() == owner.namespace()
}

impl Watcher {
    /// A user deleted an object: who is to outlive it.
    pub(super) fn deleted(&mut self, server: &Server, target: &Target, way: Propagation) {
        let Some(owner) = server.get(&target.resource, &target.object) else { return };
        let uid = owner.uid().to_owned();
        self.orphaned.remove(&uid);
        if way == Propagation::Orphan {
            let dependents = server.all().filter(|(_, o)| refers(o, &uid) && reaches(owner, o));
            let dependents = dependents.map(|(_, o)| o.uid().to_owned());
            self.orphaned.insert(uid.clone(), (server.revision(), dependents.collect()));
        }
    }

    /// Looks at what was written since the last time.
    pub(super) fn look(&mut self, server: &Server) -> Result<(), String> {
        for said in server.log.iter().skip(self.seen) {
            let name = || format!("{} {}/{}", said.resource, said.object.namespace(), said.object.name());
            self.one(server, said).map_err(|wrong| format!("{} wrote {}: {wrong}", said.by, name()))?;
            if said.gone {
                // Whoever refers to it from now on knows that it is gone.
                self.orphaned.remove(said.object.uid());
            }
        }
        self.seen = server.log.len();
        Ok(())
    }

    fn one(&self, server: &Server, said: &Said) -> Result<(), String> {
        generations(said)?;
        adoption(server, said)?;
        revisions(server, said)?;
        if said.by == COLLECTOR {
            collected(server, said)?;
            self.orphans(server, said)?;
        }
        Ok(())
    }

    /// When the collector lets an orphaning owner go, none of those that are to outlive it refers to it any more, and
    /// it collects none of them for that owner's sake, unless it decided so before the user did.
    fn orphans(&self, server: &Server, said: &Said) -> Result<(), String> {
        let Some(before) = &said.before else { return Ok(()) };
        let orphans = |o: &Document| o.deleting() && o.finalizers().any(|f| f == "orphan");
        let left = self.orphaned.get(before.uid()).filter(|_| orphans(before) && (said.gone || !orphans(&said.object)));
        let held = |uid: &&String| server.by_uid(uid).is_some_and(|(_, o)| refers(o, before.uid()) && !o.deleting());
        if let Some(dependent) = left.and_then(|(_, dependents)| dependents.iter().find(held)) {
            return Err(format!("{dependent} still refers to it"));
        }
        let deleted = begins_to_go(said);
        let owner = |(owner, (at, dependents)): (&String, &(u64, Vec<String>))| {
            let known = said.since >= *at && dependents.iter().any(|d| d == before.uid());
            (known && refers(before, owner)).then(|| owner.clone())
        };
        match self.orphaned.iter().find_map(owner).filter(|_| deleted) {
            Some(owner) => Err(format!("it was to outlive {owner}")),
            None => Ok(()),
        }
    }
}

/// Whether a write begins, or is, the end of an object.
fn begins_to_go(said: &Said) -> bool {
    let was = said.before.as_ref().is_some_and(Document::deleting);
    !was && (said.gone || said.object.deleting())
}

/// Generations never go back, and no status is ahead of them or goes back either.
fn generations(said: &Said) -> Result<(), String> {
    let of = |o: &Document, pointer: &str| o.i64_at(pointer).unwrap_or_default();
    let (generation, observed) = ("/metadata/generation", "/status/observedGeneration");
    if of(&said.object, observed) > of(&said.object, generation).max(0) {
        return Err("a generation is observed that is not there".into());
    }
    for pointer in [generation, observed] {
        let before = said.before.as_ref().map_or(0, |b| of(b, pointer));
        if of(&said.object, pointer) < before {
            return Err(format!("{pointer} goes back from {before}"));
        }
    }
    Ok(())
}

fn controller(object: &Document) -> Option<&Value> {
    object.list_at("/metadata/ownerReferences").iter().find(|o| o["controller"] == true)
}

/// Nobody takes what another controls, or what is not of its labels.
fn adoption(server: &Server, said: &Said) -> Result<(), String> {
    let Some(before) = said.before.as_ref().filter(|_| said.by != "user") else { return Ok(()) };
    let Some(now) = controller(&said.object) else { return Ok(()) };
    match controller(before) {
        Some(old) if old["uid"] != now["uid"] => return Err("it was another's".into()),
        Some(_) => return Ok(()),
        None => {}
    }
    let uid = now["uid"].as_str().unwrap_or_default();
    let Some((_, owner)) = server.by_uid(uid) else { return Ok(()) };
    let wanted = owner.at("/spec/selector").and_then(|s| serde_json::from_value(s.clone()).ok());
    let labels = before.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    match wanted.is_some_and(|s| selector::matches(&s, Some(&labels))) {
        true => Ok(()),
        false => Err("it is not of the labels of who takes it".into()),
    }
}

/// A revision only grows, so that none is ever used twice; a Deployment's may fall back when the ReplicaSet that had it
/// is lost.
fn revisions(server: &Server, said: &Said) -> Result<(), String> {
    let rolls = [Resource::of::<Deployment>(), Resource::of::<ReplicaSet>()].contains(&said.resource);
    let of = |o: &Document| o.annotation(REVISION).and_then(|r| r.parse::<i64>().ok());
    let before = said.before.as_ref().and_then(of).filter(|_| rolls);
    match before.zip(of(&said.object)) {
        Some((before, now)) if now < before => {
            let own = |o: &&Document| controller(o).is_some_and(|c| c["uid"] == said.object.uid());
            let sets = server.list(&Resource::of::<ReplicaSet>());
            match sets.into_iter().filter(own).find(|o| of(o).is_some_and(|r| r >= before)) {
                None if said.resource == Resource::of::<Deployment>() => Ok(()),
                _ => Err(format!("revision {now} after {before}")),
            }
        }
        _ => Ok(()),
    }
}

/// Whether an owner that is there waited for its dependents at some time since a revision: upstream's collector reads
/// it once (`classifyReferences` in `pkg/controller/garbagecollector`), and what is told to it later comes too late.
fn waited(server: &Server, uid: &str, since: u64) -> bool {
    let waits = |o: &Document| o.deleting() && o.finalizers().any(|f| f == "foregroundDeletion");
    for said in server.log.iter().rev().filter(|s| s.object.uid() == uid) {
        if waits(&said.object) {
            return true;
        }
        if said.revision <= since {
            return false;
        }
    }
    false
}

/// Nothing is collected that had an owner to stay since that was decided.
fn collected(server: &Server, said: &Said) -> Result<(), String> {
    let Some(before) = said.before.as_ref().filter(|_| begins_to_go(said)) else { return Ok(()) };
    let owners = before.list_at("/metadata/ownerReferences");
    if owners.is_empty() {
        return Err("nobody owned it".into());
    }
    for owner in owners {
        let uid = owner["uid"].as_str().unwrap_or_default();
        let Some((resource, there)) = server.by_uid(uid) else { continue };
        let reachable = !resource.namespaced || (said.resource.namespaced && there.namespace() == before.namespace());
        let named = there.name() == owner["name"] && resource.kind.as_ref() == owner["kind"];
        if reachable && named && !waited(server, uid, said.since) {
            return Err(format!("its owner {} is there", owner["name"]));
        }
    }
    Ok(())
}
