//! The end of a definition: its objects are deleted, and once they are gone, its finalizer.

use std::sync::Arc;
use std::time::Duration;

use api::{Document, ObjectName};
use store::{Commit, Op, Txn};

use super::definitions;
use crate::cache::Item;
use crate::core::Core;
use crate::perform::internal_delete;
use crate::row::Resource;
use crate::view::View;
use crate::write::stored;

/// Removed from a definition when its objects are gone.
pub(super) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Objects with finalizers are looked at again at least that often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Runs until the definition is gone or the server stops.
pub(super) async fn run(core: Core, name: String, row: Option<Arc<Resource>>) {
    let mut stop = core.stop.subscribe();
    let work = async {
        if let Some(row) = &row {
            empty(&core, row).await;
        }
        finish(&core, &name).await;
    };
    tokio::select! {
        () = work => {}
        () = async { drop(stop.wait_for(|stop| *stop).await) } => {}
    }
}

/// Deletes all objects and waits until they are gone.
async fn empty(core: &Core, row: &Arc<Resource>) {
    let Some(kind) = row.storage.as_ref().and_then(|s| core.cache.kind(&s.prefix)) else { return };
    let mut changed = kind.subscribe();
    loop {
        changed.borrow_and_update();
        let (items, _) = kind.list(&kind.prefix);
        if items.is_empty() {
            return;
        }
        for item in items {
            let object = ObjectName { namespace: item.namespace.to_string(), name: item.name.to_string() };
            if !item.document().deleting() {
                internal_delete(core, row, object).await;
            }
        }
        let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
    }
}

/// Takes the finalizer off; without another one the definition is gone with it.
async fn finish(core: &Core, name: &str) {
    let object = ObjectName { namespace: String::new(), name: name.into() };
    loop {
        let Some(kind) = core.kind(&definitions()) else { return };
        let Some(item) = kind.get(format!("{}{name}", kind.prefix).as_bytes()) else { return };
        let txn = without_finalizer(&item);
        let seen = core.cache.seen();
        match core.cache.store().commit(txn).await {
            Ok(Commit::Done(_)) => return,
            Ok(Commit::Conflict(at, _)) => drop(core.cache.wait(at.max(seen + 1), LOOK_AGAIN).await),
            Err(error) => {
                tracing::warn!(%error, %name, "a deleted definition could not be removed");
                return;
            }
        }
        if core.get(&definitions(), &object).is_none() {
            return;
        }
    }
}

fn without_finalizer(item: &Item) -> Txn {
    let mut document: Document = item.document();
    let left: Vec<String> = document.finalizers().filter(|f| *f != FINALIZER).map(str::to_owned).collect();
    let done = left.is_empty();
    document.set("/metadata/finalizers", left);
    let (compare, put) = stored(item, &document);
    let op = if done { Op::Delete { key: item.key.clone() } } else { put };
    Txn { compare: vec![compare], ops: vec![op] }
}
