//! The API server of the model: objects, revisions, patches, finalizers, propagation, and the log that watches read.

use std::collections::{BTreeMap, BTreeSet};

use api::Document;
use api::schema::Schema;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use reconcile::{
    Effect, Failure, Kind, ObjectName, PatchKind, Preconditions, Propagation, Resource, Target, Timestamp,
};
use serde_json::{Value, json};

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct Said {
    /// The revision of the change.
    pub revision: u64,
    /// What changed.
    pub resource: Resource,
    /// The object is gone; `object` is its last state.
    pub gone: bool,
    /// The object.
    pub object: Document,
    /// As it was before; nothing for one that is new.
    pub before: Option<Document>,
    /// Who wrote: a controller's name, `user` or `kubelet`.
    pub by: &'static str,
    /// The server's revision when a controller that wrote began to decide.
    pub since: u64,
}

/// What a write is answered with.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The object as it is now.
    Object(Resource, Document),
    /// The object of this uid is gone.
    Gone(Resource, String),
    /// Nothing that a World keeps.
    Nothing,
}

/// The model's API server.
#[derive(Default)]
pub struct Server {
    objects: BTreeMap<(Resource, ObjectName), Document>,
    /// Every change ever made, in order.
    pub log: Vec<Said>,
    /// Who writes now.
    pub actor: &'static str,
    /// The revision there was when a controller that writes now began to decide.
    pub since: u64,
    /// What is served: a resource joins with its first object, and leaves with `withdraw`.
    pub served: BTreeSet<Resource>,
    /// Uids of owners for which a controller created something and did not hear of it: it cannot know how many it has.
    pub doubtful: BTreeSet<String>,
    /// The places in the log of each resource's changes.
    places: BTreeMap<Resource, Vec<usize>>,
    revision: u64,
    named: u64,
}

fn failure(code: u16, reason: &str, message: String) -> Failure {
    Failure { code, reason: reason.into(), message }
}

fn stamp(now: Timestamp) -> Value {
    json!(reconcile::conditions::time(now))
}

impl Server {
    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many changes of a resource there were.
    pub fn said(&self, resource: &Resource) -> usize {
        self.places.get(resource).map_or(0, Vec::len)
    }

    /// One of the changes of a resource, by its number.
    pub fn nth(&self, resource: &Resource, number: usize) -> Option<&Said> {
        self.log.get(*self.places.get(resource)?.get(number)?)
    }

    /// The objects of a resource after its first `count` changes.
    pub fn list_after(&self, resource: &Resource, count: usize) -> Vec<&Document> {
        let mut objects: BTreeMap<ObjectName, &Document> = BTreeMap::new();
        for said in (0..count).filter_map(|n| self.nth(resource, n)) {
            let (namespace, name) = (said.object.namespace().into(), said.object.name().into());
            let name = ObjectName { namespace, name };
            match said.gone {
                true => drop(objects.remove(&name)),
                false => drop(objects.insert(name, &said.object)),
            }
        }
        objects.into_values().collect()
    }

    /// A resource is no longer served, and its objects are gone, as when a CustomResourceDefinition is deleted.
    pub fn withdraw(&mut self, resource: &Resource) {
        self.served.remove(resource);
        let names: Vec<ObjectName> =
            self.objects.keys().filter(|(r, _)| r == resource).map(|(_, n)| n.clone()).collect();
        names.iter().for_each(|name| drop(self.remove(resource, name)));
    }

    /// The object of a uid, wherever it is.
    pub fn by_uid(&self, uid: &str) -> Option<(&Resource, &Document)> {
        self.all().find(|(_, o)| o.uid() == uid)
    }

    /// All objects of a resource.
    pub fn list(&self, resource: &Resource) -> Vec<&Document> {
        let of = |((r, _), o): (&'_ (Resource, ObjectName), _)| (r == resource).then_some(o);
        self.objects.iter().filter_map(of).collect()
    }

    /// All objects of a kind, typed.
    pub fn typed<T: Kind>(&self) -> Vec<T> {
        self.list(&Resource::of::<T>()).into_iter().filter_map(|d| d.typed().ok()).collect()
    }

    /// One object.
    pub fn get(&self, resource: &Resource, name: &ObjectName) -> Option<&Document> {
        self.objects.get(&(resource.clone(), name.clone()))
    }

    /// Every object there is.
    pub fn all(&self) -> impl Iterator<Item = (&Resource, &Document)> {
        self.objects.iter().map(|((r, _), d)| (r, d))
    }

    /// Performs what a controller asked for.
    pub fn perform(&mut self, effect: &Effect, now: Timestamp) -> Result<Reply, Failure> {
        match effect {
            Effect::Create { resource, namespace, object, .. } => self.create(resource, namespace, object, now),
            Effect::Patch { target, subresource, kind, body, .. } => self.patch(target, subresource, *kind, body),
            Effect::Delete { target, preconditions, propagation, grace_seconds, .. } => {
                self.delete(target, preconditions, *propagation, *grace_seconds, now)
            }
            Effect::Update { target, .. } => Err(failure(501, "NotInModel", target.resource.to_string())),
            Effect::DeleteCollection { resource, .. } => Err(failure(501, "NotInModel", resource.to_string())),
            Effect::Post { .. } | Effect::Sign(_) | Effect::Event(_) => Ok(Reply::Nothing),
        }
    }

    /// The answer to an effect was lost.
    pub(super) fn doubt(&mut self, effect: &Effect) {
        let Effect::Create { object, .. } = effect else { return };
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
        self.doubtful.extend(owners.filter_map(|o| o["uid"].as_str()).map(str::to_owned));
    }

    /// Creates an object.
    pub fn create(
        &mut self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
        now: Timestamp,
    ) -> Result<Reply, Failure> {
        let mut new = Document::new(object.clone()).unwrap_or_default();
        self.named += 1;
        if new.name().is_empty() {
            new.set("/metadata/name", format!("{}{}", new.str_at("/metadata/generateName"), self.named));
        }
        let name = ObjectName { namespace: namespace.into(), name: new.name().into() };
        if self.get(resource, &name).is_some() {
            return Err(failure(409, "AlreadyExists", format!("{resource} {:?} already exists", name.name)));
        }
        if resource.namespaced {
            new.set("/metadata/namespace", namespace);
        }
        self.served.insert(resource.clone());
        new.set("/metadata/uid", format!("uid-{}", self.named));
        new.set("/metadata/creationTimestamp", stamp(now));
        new.set("/metadata/generation", 1);
        default(resource, &mut new);
        if *resource == Resource::of::<Pod>() {
            new.set_default("/status/phase", "Pending");
        }
        Ok(self.store(resource, name, new))
    }

    /// Changes an object in place, as somebody who is no controller; absent objects stay absent.
    pub fn edit(&mut self, resource: &Resource, name: &ObjectName, change: impl FnOnce(&mut Document)) {
        if let Some(mut object) = self.get(resource, name).cloned() {
            let before = object.at("/spec").cloned();
            change(&mut object);
            default(resource, &mut object);
            self.replace(resource, name.clone(), object, before.as_ref());
        }
    }

    fn store(&mut self, resource: &Resource, name: ObjectName, mut object: Document) -> Reply {
        self.revision += 1;
        object.set("/metadata/resourceVersion", self.revision.to_string());
        let before = self.get(resource, &name).cloned();
        self.say(resource, &object, before, false);
        self.objects.insert((resource.clone(), name), object.clone());
        Reply::Object(resource.clone(), object)
    }

    fn say(&mut self, resource: &Resource, object: &Document, before: Option<Document>, gone: bool) {
        self.places.entry(resource.clone()).or_default().push(self.log.len());
        let (revision, resource, object) = (self.revision, resource.clone(), object.clone());
        self.log.push(Said { revision, resource, gone, object, before, by: self.actor, since: self.since });
    }

    /// Stores a changed object: a new generation if the spec changed, gone if nothing holds it any more, the same
    /// revision if nothing changed.
    fn replace(&mut self, resource: &Resource, name: ObjectName, mut object: Document, spec: Option<&Value>) -> Reply {
        if self.get(resource, &name) == Some(&object) {
            return Reply::Object(resource.clone(), object);
        }
        if object.at("/spec") != spec {
            let generation = object.i64_at("/metadata/generation").unwrap_or_default();
            object.set("/metadata/generation", generation + 1);
        }
        let held = object.finalizers().next().is_some();
        let grace = object.i64_at("/metadata/deletionGracePeriodSeconds").unwrap_or_default() > 0;
        if object.deleting() && !held && !grace {
            return self.remove(resource, &name);
        }
        self.store(resource, name, object)
    }

    fn remove(&mut self, resource: &Resource, name: &ObjectName) -> Reply {
        let Some(mut object) = self.objects.remove(&(resource.clone(), name.clone())) else { return Reply::Nothing };
        self.revision += 1;
        let before = object.clone();
        object.set("/metadata/resourceVersion", self.revision.to_string());
        self.say(resource, &object, Some(before), true);
        Reply::Gone(resource.clone(), object.uid().into())
    }

    fn find(&self, target: &Target) -> Result<Document, Failure> {
        let missing = || failure(404, "NotFound", format!("{} {:?} not found", target.resource, target.object.name));
        self.get(&target.resource, &target.object).cloned().ok_or_else(missing)
    }

    fn patch(&mut self, target: &Target, subresource: &str, kind: PatchKind, body: &Value) -> Result<Reply, Failure> {
        let old = self.find(target)?;
        let resource = &target.resource;
        let conflict = |why: &str| failure(409, "Conflict", format!("{resource} {:?}: {why}", target.object.name));
        if body.pointer("/metadata/resourceVersion").is_some_and(|v| v != old.resource_version()) {
            return Err(conflict("the object has been modified"));
        }
        if body.pointer("/metadata/uid").is_some_and(|v| v != old.uid()) {
            return Err(conflict("the uid does not match"));
        }
        let mut new = match kind {
            PatchKind::Merge => api::patch::merge(&old, body),
            PatchKind::Strategic | PatchKind::Json => strategic(resource, &old, body)?,
        };
        let kept = if subresource == "status" { "/spec" } else { "/status" };
        match old.at(kept) {
            Some(value) => new.set(kept, value.clone()),
            None => drop(new.remove(kept)),
        }
        let controllers = new.list_at("/metadata/ownerReferences").iter().filter(|o| o["controller"] == true).count();
        if controllers > 1 {
            return Err(failure(422, "Invalid", "Only one reference can have Controller set to true".into()));
        }
        let spec = old.at("/spec").cloned();
        Ok(self.replace(resource, target.object.clone(), new, spec.as_ref()))
    }

    fn delete(
        &mut self,
        target: &Target,
        preconditions: &Preconditions,
        propagation: Option<Propagation>,
        grace_seconds: Option<i64>,
        now: Timestamp,
    ) -> Result<Reply, Failure> {
        let mut object = self.find(target)?;
        let differs = |wanted: &Option<String>, is: &str| wanted.as_ref().is_some_and(|w| w != is);
        let stale = differs(&preconditions.resource_version, object.resource_version());
        if differs(&preconditions.uid, object.uid()) || stale {
            return Err(failure(409, "Conflict", "a precondition does not hold".into()));
        }
        let finalizer = match propagation {
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            Some(Propagation::Orphan) => Some("orphan"),
            _ => None,
        };
        let mut finalizers: Vec<String> = object.finalizers().map(str::to_owned).collect();
        if propagation.is_some() {
            // The last to say how is heard.
            finalizers.retain(|f| f != "foregroundDeletion" && f != "orphan");
        }
        finalizers.extend(finalizer.map(str::to_owned));
        // A kubelet ends pods that run; others go at once.
        let runs = target.resource == Resource::of::<Pod>() && !object.str_at("/spec/nodeName").is_empty();
        let grace = if runs { grace_seconds.unwrap_or(30) } else { 0 };
        let gone_already = object.deleting() && finalizers.is_empty() && grace > 0;
        if gone_already {
            return Ok(Reply::Object(target.resource.clone(), object));
        }
        if !object.deleting() {
            object.set("/metadata/deletionTimestamp", stamp(now + SignedDuration::from_secs(grace)));
        }
        object.set("/metadata/deletionGracePeriodSeconds", grace);
        match finalizers.is_empty() {
            true => drop(object.remove("/metadata/finalizers")),
            false => object.set("/metadata/finalizers", json!(finalizers)),
        }
        let spec = object.at("/spec").cloned();
        Ok(self.replace(&target.resource, target.object.clone(), object, spec.as_ref()))
    }

    /// Deletes an object as a user does.
    pub fn delete_by_user(&mut self, target: &Target, propagation: Propagation, now: Timestamp) {
        let deleted = self.delete(target, &Preconditions::default(), Some(propagation), None, now);
        // A user who deletes what is gone is told so, and that is all.
        drop(deleted);
    }

    /// The kubelet of a terminating pod has ended it.
    pub fn ended(&mut self, name: &ObjectName) {
        self.edit(&Resource::of::<Pod>(), name, |pod| pod.set("/metadata/deletionGracePeriodSeconds", 0));
    }
}

fn default(resource: &Resource, object: &mut Document) {
    if let Some(schema) = Schema::of_kind(&resource.group, &resource.version, &resource.kind) {
        schema.default(object);
        api::kinds::rules(&resource.group, &resource.kind).default(object);
    }
}

fn strategic(resource: &Resource, old: &Document, body: &Value) -> Result<Document, Failure> {
    let schema = Schema::of_kind(&resource.group, &resource.version, &resource.kind);
    let schema = schema.ok_or_else(|| failure(415, "UnsupportedMediaType", resource.to_string()))?;
    schema.strategic_merge(old, body).map_err(|s| failure(s.code, &s.reason, s.message.clone()))
}
