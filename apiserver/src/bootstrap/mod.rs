//! The objects of Kubernetes itself: namespaces, roles, priority classes, flow schemas, the `kubernetes` service.
//!
//! They are data (`manifests/bootstrap`) and reconciled at every start, as kube-apiserver does: what is missing is made;
//! rules and subjects that a default role or binding lost are added, unless its `autoupdate` annotation says false;
//! what somebody added stays.

mod kubernetes;
mod merge;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use api::decode::{Format, plain};
use api::{Document, Timestamp};
use client::Client;
use client::kube::Error as KubeError;
use futures::{StreamExt, TryStreamExt};
use http::Request;
use serde_json::Value;

use crate::authz::rule::{Rule, rules};
use crate::identity::{Trust, front_proxy};

/// Why the objects are not there.
pub type Error = client::Error;

/// Requests in flight at the same time.
const AT_ONCE: usize = 16;

/// Namespaces first: the rest stands in them.
const FIRST: &str = include_str!("../../../manifests/bootstrap/namespaces.yaml");
const FILES: &[&str] = &[
    include_str!("../../../manifests/bootstrap/cluster-roles.yaml"),
    include_str!("../../../manifests/bootstrap/roles.yaml"),
    include_str!("../../../manifests/bootstrap/bindings.yaml"),
    include_str!("../../../manifests/bootstrap/priority-classes.yaml"),
    include_str!("../../../manifests/bootstrap/flow-control.yaml"),
];

/// The path of a kind's objects, before and after the namespace.
const PATHS: &[(&str, &str, &str)] = &[
    ("Namespace", "/api/v1", "namespaces"),
    ("ClusterRole", "/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    ("ClusterRoleBinding", "/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    ("Role", "/apis/rbac.authorization.k8s.io/v1", "roles"),
    ("RoleBinding", "/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    ("PriorityClass", "/apis/scheduling.k8s.io/v1", "priorityclasses"),
    ("PriorityLevelConfiguration", "/apis/flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations"),
    ("FlowSchema", "/apis/flowcontrol.apiserver.k8s.io/v1", "flowschemas"),
    ("Service", "/api/v1", "services"),
    ("Endpoints", "/api/v1", "endpoints"),
    ("EndpointSlice", "/apis/discovery.k8s.io/v1", "endpointslices"),
    ("ConfigMap", "/api/v1", "configmaps"),
];

/// What of a kind is looked at, where there may be many that are nobody's business here.
const LOOKED_AT: &[(&str, &str)] = &[("ConfigMap", front_proxy::CONFIG_MAP)];

/// Makes and mends all of them. `service_address` is the first address of the service range, which the `kubernetes`
/// service has; `addresses` are those at which pods reach this server; `trust` is told to servers behind it.
pub async fn reconcile(
    client: &Client,
    service_address: IpAddr,
    addresses: &[SocketAddr],
    trust: &Trust,
) -> Result<(), Error> {
    all(client, items(FIRST)).await?;
    let mut wanted: Vec<Document> = FILES.iter().copied().flat_map(items).collect();
    merge::aggregate(&mut wanted);
    wanted.extend(kubernetes::objects(service_address, addresses));
    wanted.push(trust.config_map());
    all(client, wanted).await
}

/// Looks first at what is there, kind by kind: at a restart everything is, and nothing is written.
async fn all(client: &Client, wanted: Vec<Document>) -> Result<(), Error> {
    let mut kinds: Vec<String> = wanted.iter().map(|object| object.kind().to_owned()).collect();
    kinds.sort();
    kinds.dedup();
    let lists = futures::stream::iter(kinds).map(|kind| async move { live(client, &kind).await });
    let live: Vec<Vec<Document>> = lists.buffer_unordered(AT_ONCE).try_collect().await?;
    let live: BTreeMap<Key, Document> = live.into_iter().flatten().map(|object| (key(&object), object)).collect();
    let live = &live;
    let each = futures::stream::iter(wanted).map(|wanted| async move { one(client, wanted, live).await });
    each.buffer_unordered(AT_ONCE).try_collect().await
}

type Key = [String; 3];

fn key(object: &Document) -> Key {
    [object.kind(), object.namespace(), object.name()].map(str::to_owned)
}

async fn live(client: &Client, kind: &str) -> Result<Vec<Document>, Error> {
    let found = PATHS.iter().find(|(name, _, _)| *name == kind);
    let (_, prefix, plural) = found.copied().unwrap_or_default();
    let name = LOOKED_AT.iter().find(|(of, _)| *of == kind);
    let query = name.map(|(_, name)| format!("?fieldSelector=metadata.name%3D{name}")).unwrap_or_default();
    let request = Request::get(format!("{prefix}/{plural}{query}")).body(Vec::new()).map_err(KubeError::HttpError)?;
    let list: Value = client.request(request).await?;
    let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |mut item: Document| {
        // Items of a list do not say what they are.
        item.set("/kind", kind);
        item.set("/apiVersion", list.get("apiVersion").cloned().unwrap_or_default());
        item
    };
    Ok(items.into_iter().filter_map(Document::new).map(named).collect())
}

async fn one(client: &Client, wanted: Document, live: &BTreeMap<Key, Document>) -> Result<(), Error> {
    let path = path(&wanted);
    let Some(live) = live.get(&key(&wanted)) else {
        return match send(client, http::Method::POST, &path, &wanted).await {
            // Another server was faster.
            Err(KubeError::Api(status)) if status.code == 409 => Ok(()),
            made => Ok(made.map(drop)?),
        };
    };
    let Some(mended) = merge::mend(live, &wanted, Timestamp::now()) else { return Ok(()) };
    let own = format!("{path}/{}", wanted.name());
    Ok(send(client, http::Method::PUT, &own, &mended).await.map(drop)?)
}

async fn send(client: &Client, method: http::Method, path: &str, object: &Document) -> Result<Value, KubeError> {
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    client.request(request.body(object.to_bytes()).map_err(KubeError::HttpError)?).await
}

fn path(object: &Document) -> String {
    let found = PATHS.iter().find(|(kind, _, _)| *kind == object.kind());
    let (_, prefix, plural) = found.copied().unwrap_or_default();
    match object.namespace() {
        "" => format!("{prefix}/{plural}"),
        namespace => format!("{prefix}/namespaces/{namespace}/{plural}"),
    }
}

fn items(file: &str) -> Vec<Document> {
    let list = plain(file.as_bytes(), Format::Yaml).unwrap_or_default();
    let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    items.into_iter().filter_map(Document::new).collect()
}

/// The rules of the role `system:node`, which the node authorizer gives to every node.
pub(crate) fn node_rules() -> &'static [Rule] {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        let roles = FILES.first().map(|file| items(file)).unwrap_or_default();
        roles.iter().find(|role| role.name() == "system:node").map(rules).unwrap_or_default()
    });
    &RULES
}

#[cfg(test)]
mod tests {
    use super::{FILES, FIRST, items, merge, node_rules, path};
    use api::Document;

    #[test]
    fn every_object_is_read_and_has_a_place() {
        let mut all: Vec<Document> = FILES.iter().copied().flat_map(items).chain(items(FIRST)).collect();
        assert_eq!(all.len(), 166);
        assert!(all.iter().all(|object| path(object).starts_with("/ap")));
        assert!(node_rules().len() > 5);
        merge::aggregate(&mut all);
        let rules = |name: &str| {
            all.iter().find(|role| role.kind() == "ClusterRole" && role.name() == name).unwrap().list_at("/rules").len()
        };
        assert!(rules("admin") > rules("edit") && rules("edit") > rules("view") && rules("view") > 0);
    }
}
