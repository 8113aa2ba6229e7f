//! Compaction of etcd's history as kube-apiserver does it (`k8s.io/apiserver/pkg/storage/etcd3/compact.go`): in each
//! interval one of all API servers, whichever comes first, compacts to where the interval before it began. They agree by
//! the version of one key, which kube-apiservers on the same etcd use as well.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, KvClient, Txn, TxnOp, TxnOpResponse};
use tokio::sync::watch::Receiver;

use super::{limited, unavailable};
use crate::Error;

const KEY: &str = "compact_rev_key";

/// What one server knows of the turns.
#[derive(Default)]
struct Turns {
    /// The key's version: how many were taken, by whomever.
    taken: i64,
    /// etcd's revision at the last turn; 0: there was none.
    revision: i64,
}

impl Turns {
    /// Takes the next turn, unless somebody else has. Whoever has just begun only learns where things stand.
    async fn take(&mut self, mut kv: KvClient) -> Result<(), Error> {
        let mine = Compare::version(KEY, CompareOp::Equal, self.taken);
        let put = TxnOp::put(KEY, self.revision.to_string(), None);
        let txn = Txn::new().when([mine]).and_then([put]).or_else([TxnOp::get(KEY, None)]);
        let response = limited(kv.txn(txn)).await?.map_err(|e| unavailable(&e))?;
        let seen = response.header().map_or(0, |header| header.revision());
        let before = std::mem::replace(&mut self.revision, seen);
        if !response.succeeded() {
            let found = response.op_responses().into_iter().find_map(|op| match op {
                TxnOpResponse::Get(found) => found.kvs().first().map(|kv| kv.version()),
                _ => None,
            });
            self.taken = found.unwrap_or(0);
            return Ok(());
        }
        self.taken += 1;
        if before == 0 {
            return Ok(());
        }
        match limited(kv.compact(before, None)).await?.map_err(|e| unavailable(&e)) {
            Ok(_) | Err(Error::Compacted(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Takes turns for as long as the store is there: until nobody can send to `alive` any more.
pub(super) fn start<T: Clone + Send + Sync + 'static>(kv: KvClient, interval: Duration, mut alive: Receiver<T>) {
    let turns = async move {
        let mut turns = Turns::default();
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = turns.take(kv.clone()).await {
                tracing::warn!(%error, "etcd's history was not compacted");
            }
        }
    };
    tokio::spawn(async move {
        let gone = async { while alive.changed().await.is_ok() {} };
        tokio::select! { () = turns => {}, () = gone => {} }
    });
}
