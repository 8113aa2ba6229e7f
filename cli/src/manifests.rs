//! The manifests that are built into the program, and applying them.

use anyhow::{Context, Result};
use client::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{Scope, pinned_kind};
use serde::Deserialize;

/// What every cluster has, besides the objects of Kubernetes itself.
pub(crate) const CLUSTER: &[&str] =
    &[include_str!("../../manifests/cluster/rbac.yaml"), include_str!("../../manifests/cluster/dns.yaml")];

/// The quick start.
pub(crate) const QUICK_START: &[&str] = &[include_str!("../../manifests/quickstart/web.yaml")];

/// Applies manifests (server-side, with force: they are ours), after putting values in for their placeholders.
pub(crate) async fn apply(client: &Client, texts: &[&str], values: &[(&str, String)], manager: &str) -> Result<()> {
    for text in texts {
        let text = values.iter().fold((*text).to_owned(), |text, (key, value)| text.replace(key, value));
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object = DynamicObject::deserialize(document).context("a built-in manifest is not an object")?;
            apply_one(client, &object, manager).await?;
        }
    }
    Ok(())
}

async fn apply_one(client: &Client, object: &DynamicObject, manager: &str) -> Result<()> {
    let types = object.types.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let what = || format!("apply {} {name}", types.kind);
    let (resource, capabilities) = pinned_kind(client, &gvk(&types)?).await.with_context(what)?;
    let api: Api<DynamicObject> = match (&capabilities.scope, &object.metadata.namespace) {
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), namespace, &resource),
        (Scope::Namespaced, None) => Api::namespaced_with(client.clone(), "default", &resource),
    };
    api.patch(&name, &PatchParams::apply(manager).force(), &Patch::Apply(object)).await.with_context(what)?;
    Ok(())
}

fn gvk(types: &TypeMeta) -> Result<GroupVersionKind> {
    GroupVersionKind::try_from(types).context("a built-in manifest has no apiVersion and kind")
}
