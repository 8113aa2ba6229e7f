//! The service range as objects: the ServiceCIDR `kubernetes`, and an IPAddress for every address that a service has.
//! Both are mended at each start, since other servers on the same store, or older ones, may have left them out
//! (`pkg/controlplane/controller/defaultservicecidr`, `pkg/registry/core/service/ipallocator/controller`).

use api::{Document, GroupResource, time};
use bytes::Bytes;
use serde_json::json;
use store::{Commit, Compare, Error, Op, Range, Txn};

use crate::cache::encode;
use crate::core::Core;
use crate::view::View;
use crate::write::addresses;
use crate::write::allocate::cluster_ips;

/// Where the ServiceCIDR of the configured ranges stands.
const DEFAULT: &str = "/registry/servicecidrs/kubernetes";

/// Makes what is missing.
pub(crate) async fn mend(core: &Core) -> Result<(), Error> {
    missing(core, DEFAULT, range(core)).await?;
    for service in core.list(&GroupResource::new("", "services"), None) {
        for address in cluster_ips(&service) {
            let object = addresses::object(&address, &service, core.entropy().uuid(), core.now());
            missing(core, &addresses::key(&address), object).await?;
        }
    }
    forget_older(core).await
}

/// Writes an object unless it is there.
async fn missing(core: &Core, key: &str, object: Document) -> Result<(), Error> {
    if core.cache.of_key(key).is_some_and(|kind| kind.get(key.as_bytes()).is_some()) {
        return Ok(());
    }
    let key = Bytes::copy_from_slice(key.as_bytes());
    let compare = vec![Compare { key: key.clone(), mod_revision: 0 }];
    let ops = vec![Op::Put { key, value: encode(&object), lease: 0 }];
    // A conflict means that another server was faster.
    match core.cache.store().commit(Txn { compare, ops }).await? {
        Commit::Done(_) | Commit::Conflict(..) => Ok(()),
    }
}

fn range(core: &Core) -> Document {
    let now = time::rfc3339(core.now());
    let cidrs: Vec<String> = core.config.service_cidrs.iter().map(ToString::to_string).collect();
    let ready = json!({"type": "Ready", "status": "True", "reason": "", "lastTransitionTime": now,
        "message": "Kubernetes default Service CIDR is ready"});
    let object = json!({
        "kind": "ServiceCIDR",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "kubernetes", "uid": core.entropy().uuid(), "creationTimestamp": now},
        "spec": {"cidrs": cidrs},
        "status": {"conditions": [ready]},
    });
    Document::new(object).unwrap_or_default()
}

/// Versions up to 0.1 kept addresses under keys of their own.
async fn forget_older(core: &Core) -> Result<(), Error> {
    let prefix = format!("{}addresses/", core.config.own_prefix);
    let store = core.cache.store();
    let old = store.range(Range::prefix(prefix.into_bytes())).await?;
    let ops: Vec<Op> = old.entries.into_iter().map(|entry| Op::Delete { key: entry.key }).collect();
    for ops in ops.chunks(MAX_OPS) {
        store.commit(Txn { compare: Vec::new(), ops: ops.to_vec() }).await?;
    }
    Ok(())
}

/// So many operations go into one transaction (etcd's `--max-txn-ops` is 128).
const MAX_OPS: usize = 100;
