//! ResourceQuota: charged in the very transaction that writes, so that no two writes take the same room
//! (`k8s.io/apiserver/pkg/admission/plugin/resourcequota`).

use api::quota::{self, Charged, amounts};
use api::{Document, GroupResource, Status};
use store::Txn;

use super::admit::Admission;
use super::machine::{Machine, Stepped, put, unchanged};

fn quotas() -> GroupResource {
    GroupResource::new("", "resourcequotas")
}

/// What the write takes, as a part of its transaction; 403 where that is too much.
pub(super) fn charge(
    machine: &Machine<'_>,
    admission: &Admission,
    object: &Document,
    old: Option<&Document>,
    txn: &mut Txn,
) -> Stepped<()> {
    let resource = machine.request.call.resource();
    let namespace = &machine.object_name().namespace;
    let subresource = machine.request.subresource();
    let request = quota::Request { resource: &resource, subresource, object, old, now: machine.now() };
    if namespace.is_empty() || !request.may_charge() {
        return Ok(());
    }
    let held = current(machine, namespace);
    let refused = |why: String| {
        let name = if admission.subject.name.is_empty() { object.name() } else { &admission.subject.name };
        Status::forbidden(&resource, name, &why)
    };
    for Charged { index, used } in quota::charge(&held, &request).map_err(refused)? {
        let Some(before) = held.get(index) else { continue };
        let key = key(before);
        let mut after = before.clone();
        after.set("/status/used", amounts::write(&used));
        txn.compare.push(unchanged(&key, before));
        txn.ops.push(put(&key, &after, 0));
    }
    Ok(())
}

fn key(quota: &Document) -> String {
    format!("/registry/resourcequotas/{}/{}", quota.namespace(), quota.name())
}

/// The quotas of the namespace as the store has them, as far as that is known.
fn current(machine: &Machine<'_>, namespace: &str) -> Vec<Document> {
    let listed = machine.snapshot.view().list(&quotas(), Some(namespace));
    listed.iter().filter_map(|quota| machine.snapshot.object(&key(quota))).collect()
}
