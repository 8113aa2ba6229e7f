//! The end of a definition: its objects are deleted, and once they are gone, its finalizer.

use std::sync::Arc;
use std::time::Duration;

use api::{Document, ObjectName, Timestamp};
use store::{Commit, Op, Txn};
use tokio::time::Instant;

use super::definitions;
use super::status::condition;
use crate::cache::Item;
use crate::core::Core;
use crate::perform::internal_delete;
use crate::row::Resource;
use crate::write::stored;

/// Removed from a definition when its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Objects with finalizers are looked at again at least that often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// After so long the definition says that objects are left.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a definition's condition `Terminating` says: status, reason and message.
type Said = (&'static str, &'static str, String);

/// Runs until the definition is gone or the server stops.
pub(super) async fn run(core: Core, name: String, row: Option<Arc<Resource>>) {
    let mut stop = core.stop.subscribe();
    let work = async {
        let said = match &row {
            Some(row) => {
                empty(&core, &name, row).await;
                ("False", "InstanceDeletionCompleted", "removed all instances".to_owned())
            }
            None => ("False", "NeverEstablished", "resource was never established".to_owned()),
        };
        write(&core, &name, &said, true).await;
    };
    tokio::select! {
        () = work => {}
        () = async { drop(stop.wait_for(|stop| *stop).await) } => {}
    }
}

/// Deletes all objects and waits until they are gone.
async fn empty(core: &Core, name: &str, row: &Arc<Resource>) {
    let Some(kind) = row.storage.as_ref().and_then(|s| core.cache.kind(&s.prefix)) else { return };
    let mut changed = kind.subscribe();
    let since = Instant::now();
    let mut told: Option<Said> = None;
    loop {
        changed.borrow_and_update();
        let (items, _) = kind.list(&kind.prefix);
        if items.is_empty() {
            return;
        }
        let mut failed = Vec::new();
        for item in items {
            let object = ObjectName { namespace: item.namespace.to_string(), name: item.name.to_string() };
            if !item.document().deleting()
                && let Err(status) = internal_delete(core, row, object).await
                && status.code != 404
            {
                failed.push(status.message);
            }
        }
        let late = since.elapsed() > PATIENCE;
        let said = (!failed.is_empty() || late).then(|| match failed.as_slice() {
            [] => ("True", "InstanceDeletionCheck", format!("{UNCONFIRMED}: context deadline exceeded")),
            failed => {
                let all = crate::authz::aggregate(failed);
                ("True", "InstanceDeletionFailed", format!("could not issue all deletes: {all}"))
            }
        });
        if let Some(said) = said.filter(|said| told.as_ref() != Some(said)) {
            write(core, name, &said, false).await;
            told = Some(said);
        }
        let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
    }
}

const UNCONFIRMED: &str = "could not confirm zero CustomResources remaining";

/// Lets the definition say what became of its objects. At the end the finalizer goes; without another one the definition
/// is gone with it.
async fn write(core: &Core, name: &str, said: &Said, end: bool) {
    loop {
        let Some(kind) = core.kind(&definitions()) else { return };
        let Some(item) = kind.get(format!("{}{name}", kind.prefix).as_bytes()) else { return };
        let txn = changed(&item, said, end, core.now());
        let seen = core.cache.seen();
        match core.cache.store().commit(txn).await {
            Ok(Commit::Done(_)) => return,
            Ok(Commit::Conflict(at, _)) => drop(core.cache.wait(at.max(seen + 1), LOOK_AGAIN).await),
            Err(error) => {
                tracing::warn!(%error, %name, "a deleted definition could not be written");
                return;
            }
        }
    }
}

fn changed(item: &Item, said: &Said, end: bool, now: Timestamp) -> Txn {
    let mut document: Document = item.document();
    condition(&mut document, "Terminating", said.clone(), now);
    let left: Vec<String> = document.finalizers().filter(|f| *f != FINALIZER).map(str::to_owned).collect();
    let done = end && left.is_empty();
    if end {
        document.set("/metadata/finalizers", left);
    }
    let (compare, put) = stored(item, &document);
    let op = if done { Op::Delete { key: item.key.clone() } } else { put };
    Txn { compare: vec![compare], ops: vec![op] }
}
