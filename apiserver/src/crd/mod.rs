//! CustomResourceDefinitions: rows added and removed at run time, names and conditions, and the end of a definition's
//! objects. The server does this itself; a definition is served before it says that it is established.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Document, GroupResource};
use serde_json::Value;
use store::{Commit, Txn};

mod cleanup;
mod json_path;
mod row;
mod rules;
mod status;

use crate::cache::{Item, Kind};
use crate::core::Core;
use crate::row::Resource;
use crate::rows::built_in;
use crate::write::stored;
pub(crate) use cleanup::FINALIZER;
pub(crate) use rules::Custom;

/// A definition that could not be written is tried again after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);

fn definitions() -> GroupResource {
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Makes the rows of the definitions there are, and follows their changes until the server stops.
pub(crate) async fn start(core: &Core) -> Result<(), store::Error> {
    let Some(kind) = core.kind(&definitions()) else { return Ok(()) };
    let mut follower = Follower { core: core.clone(), kind, rows: BTreeMap::new(), ending: BTreeMap::new() };
    follower.sync().await?;
    core.tasks.spawn(async move { follower.run().await });
    Ok(())
}

/// What of a definition makes its row: all but its conditions.
#[derive(PartialEq)]
struct Made {
    spec: Option<Value>,
    names: Option<Value>,
    uid: String,
}

impl Made {
    fn of(definition: &Document) -> Self {
        let part = |pointer: &str| definition.at(pointer).cloned();
        Self { spec: part("/spec"), names: part("/status/acceptedNames"), uid: definition.uid().to_owned() }
    }
}

struct Follower {
    core: Core,
    kind: Arc<Kind>,
    /// By the definition's name, with what it was made from.
    rows: BTreeMap<String, (Made, Arc<Resource>)>,
    /// Definitions whose objects are being removed.
    ending: BTreeMap<String, tokio::task::JoinHandle<()>>,
}

impl Follower {
    async fn run(&mut self) {
        let mut changed = self.kind.subscribe();
        let mut stop = self.core.stop.subscribe();
        loop {
            changed.borrow_and_update();
            let failed = match self.sync().await {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, "custom resource definitions could not be taken over");
                    true
                }
            };
            let retry = async {
                match failed {
                    true => tokio::time::sleep(RETRY_AFTER).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                change = changed.changed() => if change.is_err() { return },
                () = retry => {}
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
            }
        }
    }

    async fn sync(&mut self) -> Result<(), store::Error> {
        let (items, _) = self.kind.list(&self.kind.prefix);
        let all: Vec<(Arc<Item>, Document)> = items
            .into_iter()
            .map(|item| {
                let d = item.document();
                (item, d)
            })
            .collect();
        let mut documents: Vec<Document> = all.iter().map(|(_, document)| document.clone()).collect();
        self.drop_gone(&documents);
        let mut pending = Vec::new();
        for (at, (item, document)) in all.iter().enumerate() {
            let decided = status::decide(document, &documents, self.core.now());
            if decided.serve {
                self.serve(decided.document.as_ref().unwrap_or(document)).await?;
            }
            if document.deleting() && document.finalizers().any(|finalizer| finalizer == cleanup::FINALIZER) {
                self.end(document);
            }
            if let Some(changed) = decided.document {
                // Names that it was given now are taken for those after it.
                if let Some(known) = documents.get_mut(at) {
                    *known = changed.clone();
                }
                pending.push((item, changed));
            }
        }
        self.swap();
        for (item, document) in pending {
            self.write(item, &document).await?;
        }
        Ok(())
    }

    fn drop_gone(&mut self, documents: &[Document]) {
        let there = |name: &String| documents.iter().any(|document| document.name() == name);
        let core = &self.core;
        self.rows.retain(|name, (_, row)| {
            let keep = there(name);
            if let (false, Some(storage)) = (keep, &row.storage) {
                core.cache.remove(&storage.prefix);
            }
            keep
        });
        self.ending.retain(|name, task| there(name) && !task.is_finished());
    }

    async fn serve(&mut self, definition: &Document) -> Result<(), store::Error> {
        let made = Made::of(definition);
        if let Some((_, row)) = self.rows.get_mut(definition.name()).filter(|(known, _)| *known == made) {
            if row.ending != definition.deleting() {
                *row = Arc::new(Resource { ending: definition.deleting(), ..Resource::clone(row) });
            }
            return Ok(());
        }
        let Some(row) = row::of(definition) else { return Ok(()) };
        if let Some(storage) = &row.storage {
            self.core.cache.add(storage.prefix.clone(), row.strategy.clone()).await?;
        }
        self.rows.insert(definition.name().to_owned(), (made, Arc::new(row)));
        Ok(())
    }

    /// Puts the rows in place if they are others than now.
    fn swap(&self) {
        let current = self.core.registry.current();
        let custom: Vec<Arc<Resource>> = self.rows.values().map(|(_, row)| Arc::clone(row)).collect();
        let now: Vec<&Arc<Resource>> = current.iter().filter(|row| row.custom).collect();
        if now.len() == custom.len() && now.iter().zip(&custom).all(|(a, b)| Arc::ptr_eq(a, b)) {
            return;
        }
        let mut all = built_in();
        all.extend(custom);
        self.core.registry.swap(all);
    }

    fn end(&mut self, definition: &Document) {
        let name = definition.name().to_owned();
        let row = self.rows.get(&name).map(|(_, row)| Arc::clone(row));
        let core = self.core.clone();
        self.ending.entry(name.clone()).or_insert_with(|| core.tasks.spawn(cleanup::run(core.clone(), name, row)));
    }

    /// A conflict needs no answer: the change that caused it leads here again.
    async fn write(&self, item: &Item, document: &Document) -> Result<(), store::Error> {
        let (compare, op) = stored(item, document);
        match self.core.cache.store().commit(Txn { compare: vec![compare], ops: vec![op] }).await? {
            Commit::Done(_) | Commit::Conflict(..) => Ok(()),
        }
    }
}
