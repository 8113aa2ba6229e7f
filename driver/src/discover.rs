//! Which resources the server has: read again from time to time, when a decider asks, and when something that
//! changes them changed.

use std::sync::Arc;
use std::time::Duration;

use kube::core::discovery::v2::{APIGroupDiscoveryList, APIResourceDiscovery};
use reconcile::{Failure, Resource, Selection};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::request;
use crate::shared::Shared;
use crate::source::Follows;

/// How often discovery is read even if nothing hints at a change.
const EVERY: Duration = Duration::from_secs(30);
/// A definition is served a moment after it is written.
const SETTLE: Duration = Duration::from_secs(1);
/// How long the first lists of everything are waited for: one resource whose server is away holds nobody up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The preferred version of each resource that can be listed, watched and deleted.
pub(crate) async fn resources(client: &kube::Client) -> Result<Vec<Resource>, Failure> {
    let core = client.list_core_api_versions_aggregated().await.map_err(request::failure)?;
    let groups = client.list_api_groups_aggregated().await.map_err(request::failure)?;
    let mut found = preferred(&core);
    found.extend(preferred(&groups));
    Ok(found)
}

fn preferred(list: &APIGroupDiscoveryList) -> Vec<Resource> {
    let mut found: Vec<Resource> = Vec::new();
    for group in &list.items {
        let name = group.metadata.as_ref().and_then(|m| m.name.clone()).unwrap_or_default();
        for version in &group.versions {
            let label = version.version.clone().unwrap_or_default();
            let resources = version.resources.iter().filter(|r| deletable(r));
            for resource in resources.filter_map(|r| row(&name, &label, r)) {
                if !found.iter().any(|f| f.group == resource.group && f.plural == resource.plural) {
                    found.push(resource);
                }
            }
        }
    }
    found
}

fn deletable(resource: &APIResourceDiscovery) -> bool {
    ["list", "watch", "delete"].iter().all(|verb| resource.verbs.iter().any(|v| v == verb))
}

fn row(group: &str, version: &str, resource: &APIResourceDiscovery) -> Option<Resource> {
    Some(Resource {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        kind: resource.response_kind.as_ref()?.kind.clone()?.into(),
        plural: resource.resource.clone()?.into(),
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
    })
}

/// Watches everything that discovery names, but for what is watched by name already, until told to stop.
pub(crate) async fn follow(shared: Arc<Shared>, named: &[Resource], shutdown: CancellationToken) {
    let mut follows = Follows::default();
    let mut backoff = Backoff::new(Duration::from_millis(200), EVERY);
    let mut first = true;
    loop {
        let wait = match resources(&shared.client).await {
            Ok(found) => {
                let wanted = wanted(&shared, named, &found);
                shared.world_mut().discovered(found);
                follows.become_those(&shared, &wanted, &shutdown);
                if std::mem::take(&mut first) {
                    tokio::spawn(first_lists(shared.clone(), wanted));
                }
                backoff.reset();
                EVERY
            }
            Err(failure) => {
                tracing::warn!(message = failure.message, "discovery failed");
                backoff.step()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.rediscover.notified() => tokio::time::sleep(SETTLE).await,
            () = shutdown.cancelled() => return,
        }
    }
}

fn wanted(shared: &Shared, named: &[Resource], found: &[Resource]) -> Vec<Resource> {
    let everything =
        |r: &Resource| shared.watches().any(|w| matches!(w.selection, Selection::Everything { .. }) && w.covers(r));
    found.iter().filter(|r| !named.contains(r) && everything(r)).cloned().collect()
}

async fn first_lists(shared: Arc<Shared>, wanted: Vec<Resource>) {
    let watches: Vec<reconcile::Watch> = wanted.into_iter().map(reconcile::Watch::metadata_of).collect();
    if tokio::time::timeout(PATIENCE, shared.synced(&watches)).await.is_err() {
        tracing::warn!("some resources could not be listed; going on without them");
    }
    shared.everything_listed();
}
