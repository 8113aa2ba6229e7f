//! One list and watch per resource, into the World.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt};
use rand::RngExt;
use reconcile::resource::revision_of;
use reconcile::{Failure, Object, Partial, Resource, Selection};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::discover;
use crate::request::{self, Form};
use crate::shared::{Reading, Shared};

/// Objects a page of a list.
const PAGE: usize = 500;

/// Watches everything that the deciders want, until told to stop.
pub(crate) async fn watch_all(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut named: Vec<Resource> = Vec::new();
    for watch in shared.watches() {
        if let Selection::One(resource) = &watch.selection
            && !named.contains(resource)
        {
            named.push(resource.clone());
        }
    }
    let mut tasks = JoinSet::new();
    for resource in &named {
        tasks.spawn(follow(shared.clone(), resource.clone(), shutdown.clone()));
    }
    if shared.watches().any(|w| matches!(w.selection, Selection::Everything { .. })) {
        discover::follow(shared, &named, shutdown).await;
    }
    while tasks.join_next().await.is_some() {}
}

/// Lists and watches one resource until told to stop.
pub(crate) async fn follow(shared: Arc<Shared>, resource: Resource, stop: CancellationToken) {
    let reading = shared.keep(&resource);
    let source = Source { form: form(&reading), reading, resource, shared };
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut revision = None;
    while !stop.is_cancelled() {
        let step = source.step(&mut revision, &mut backoff);
        let result = tokio::select! { r = step => r, () = stop.cancelled() => return };
        if let Err(failure) = result {
            if failure.code == 410 || matches!(failure.reason.as_str(), "Expired" | "Gone") {
                revision = None;
            }
            source.shared.progress();
            let Failure { code, message, .. } = failure;
            tracing::debug!(resource = %source.resource, code, message, "watch ended");
        }
        tokio::select! { () = tokio::time::sleep(backoff.step()) => {}, () = stop.cancelled() => return }
    }
}

fn form(reading: &Reading) -> Form {
    if reading.metadata_only { Form::Metadata } else { Form::Whole }
}

struct Source {
    shared: Arc<Shared>,
    resource: Resource,
    reading: Reading,
    form: Form,
}

#[derive(Deserialize)]
struct ListPage<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    continue_: String,
}

#[derive(Deserialize)]
struct WatchEvent<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

impl Source {
    /// Lists if there is no revision to go on from, then watches until the stream ends.
    async fn step(&self, revision: &mut Option<u64>, backoff: &mut Backoff) -> Result<(), Failure> {
        let from = match *revision {
            Some(from) => from,
            None => {
                let (objects, listed) = list(&self.shared, &self.resource, "", &self.reading).await?;
                self.shared.apply(|world, now| world.listed(&self.resource, objects, listed, now));
                self.shared.progress();
                *revision.insert(listed)
            }
        };
        self.watch(from, revision, backoff).await
    }

    async fn watch(&self, from: u64, revision: &mut Option<u64>, backoff: &mut Backoff) -> Result<(), Failure> {
        let timeout = rand::rng().random_range(300..600_u64);
        let query = format!("resourceVersion={from}&timeoutSeconds={timeout}");
        let request = request::watch(&request::collection(&self.resource, ""), &query, self.form)?;
        let body = self.shared.client.request_stream(request).await.map_err(request::failure)?;
        let mut lines = Box::pin(body).lines();
        // The server ends a watch after its timeout; one that is silent for longer is dead.
        let patience = Duration::from_secs(timeout + 30);
        let silent = |_| unreadable(&"nothing was heard for too long");
        while let Some(line) = tokio::time::timeout(patience, lines.next()).await.map_err(silent)? {
            let line = line.map_err(|e| unreadable(&e))?;
            if line.is_empty() {
                continue;
            }
            *revision = Some(self.event(&line)?.max(revision.unwrap_or_default()));
            backoff.reset();
        }
        Ok(())
    }

    /// Takes one event in and returns its revision.
    fn event(&self, line: &str) -> Result<u64, Failure> {
        let event: WatchEvent<'_> = serde_json::from_str(line).map_err(|e| unreadable(&e))?;
        let bytes = event.object.get().as_bytes();
        match event.type_ {
            "ADDED" | "MODIFIED" => match self.reading.read(bytes) {
                Ok(object) => {
                    let revision = revision_of(object.metadata());
                    self.shared.apply(|world, now| world.said(&self.resource, object, now));
                    Ok(revision)
                }
                Err(failure) => left_out(&self.resource, bytes, &failure),
            },
            "DELETED" => {
                let object = partial(bytes)?;
                self.shared.apply(|world, _| world.said_gone(&self.resource, &object));
                Ok(revision_of(&object.metadata))
            }
            "BOOKMARK" => {
                let revision = revision_of(&partial(bytes)?.metadata);
                self.shared.world_mut().bookmark(&self.resource, revision);
                Ok(revision)
            }
            _ => Err(error_event(bytes)),
        }
    }
}

fn partial(bytes: &[u8]) -> Result<Partial, Failure> {
    serde_json::from_slice(bytes).map_err(|e| unreadable(&e))
}

/// One object that cannot be read does not hold up the others: what is known of it stays. Returns its revision.
fn left_out(resource: &Resource, bytes: &[u8], failure: &Failure) -> Result<u64, Failure> {
    let Partial { metadata, .. } = partial(bytes)?;
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    tracing::warn!(%resource, namespace, name, message = failure.message, "an object cannot be read");
    Ok(revision_of(&metadata))
}

fn error_event(bytes: &[u8]) -> Failure {
    match serde_json::from_slice::<ErrorObject>(bytes) {
        Ok(e) => Failure { code: e.code, reason: e.reason, message: e.message },
        Err(e) => unreadable(&e),
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Failure {
    Failure { code: 0, reason: "Unreadable".into(), message: error.to_string() }
}

/// Everything of a resource, page by page, and the list's revision.
pub(crate) async fn list(
    shared: &Shared,
    resource: &Resource,
    namespace: &str,
    reading: &Reading,
) -> Result<(Vec<Arc<dyn Object>>, u64), Failure> {
    let path = request::collection(resource, namespace);
    let (mut objects, mut continue_) = (Vec::new(), String::new());
    loop {
        let query = match continue_.as_str() {
            "" => format!("limit={PAGE}"),
            token => format!("limit={PAGE}&continue={token}"),
        };
        let request = request::list(&path, &query, form(reading))?;
        let text = shared.client.request_text(request).await.map_err(request::failure)?;
        let page: ListPage<'_> = serde_json::from_str(&text).map_err(|e| unreadable(&e))?;
        for item in page.items.unwrap_or_default() {
            let bytes = item.get().as_bytes();
            match reading.read(bytes) {
                Ok(object) => objects.push(object),
                Err(failure) => drop(left_out(resource, bytes, &failure)?),
            }
        }
        if page.metadata.continue_.is_empty() {
            return Ok((objects, page.metadata.resource_version.parse().unwrap_or_default()));
        }
        continue_ = page.metadata.continue_.replace('%', "%25").replace('+', "%2B").replace('=', "%3D");
    }
}

/// Tasks of watches that come and go with discovery.
#[derive(Default)]
pub(crate) struct Follows(HashMap<Resource, CancellationToken>);

impl Follows {
    /// Starts the watches of new resources and ends those of gone ones; what those held is gone.
    pub(crate) fn become_those(&mut self, shared: &Arc<Shared>, wanted: &[Resource], shutdown: &CancellationToken) {
        for resource in wanted.iter().filter(|r| !self.0.contains_key(*r)).cloned().collect::<Vec<_>>() {
            let stop = shutdown.child_token();
            tokio::spawn(follow(shared.clone(), resource.clone(), stop.clone()));
            self.0.insert(resource, stop);
        }
        let gone: Vec<Resource> = self.0.keys().filter(|r| !wanted.contains(r)).cloned().collect();
        for resource in gone {
            if let Some(stop) = self.0.remove(&resource) {
                stop.cancel();
            }
            shared.apply(|world, _| world.forget(&resource));
        }
    }
}
