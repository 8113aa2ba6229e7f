//! ServiceAccount: every pod has one, and its token where it wants it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use api::{Document, StatusResult};
use serde_json::{Value, json};

use super::{CONTAINERS, Context, Plugin, is_mirror, push};
use crate::entropy::Entropy;

const PREFIX: &str = "kube-api-access-";
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// The life of projected tokens: an hour, and the seconds by which old clients are told from others.
const LIFE_S: i64 = 3607;

pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutate(&self, pod: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        if context.verb() != "create" || !context.is("", "pods") {
            return Ok(());
        }
        if is_mirror(pod) {
            return mirror(pod, context);
        }
        if pod.str_at("/spec/serviceAccountName").is_empty() {
            pod.set("/spec/serviceAccountName", "default");
            pod.set("/spec/serviceAccount", "default");
        }
        let account = account(pod, context)?;
        let automount = |object: &Document, at: &str| object.at(at).and_then(Value::as_bool);
        let wanted = automount(pod, "/spec/automountServiceAccountToken")
            .or_else(|| automount(&account, "/automountServiceAccountToken"));
        if wanted.unwrap_or(true) {
            mount(pod, context);
        }
        if pod.list_at("/spec/imagePullSecrets").is_empty() && !account.list_at("/imagePullSecrets").is_empty() {
            pod.set("/spec/imagePullSecrets", account.list_at("/imagePullSecrets").to_vec());
        }
        secrets(pod, &account, context)
    }
}

fn account(pod: &Document, context: &Context<'_>) -> StatusResult<Document> {
    let (namespace, name) = (context.namespace(), pod.str_at("/spec/serviceAccountName"));
    context.look_up("", "serviceaccounts", namespace, name).ok_or_else(|| {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        context.forbidden(pod, why)
    })
}

/// The image of a static pod holds only what stands in the node's file.
fn mirror(pod: &Document, context: &Context<'_>) -> StatusResult<()> {
    let text = pod.at("/spec").map(Value::to_string).unwrap_or_default();
    let has = |key: &str| text.contains(&format!("\"{key}\":"));
    let why = if !pod.str_at("/spec/serviceAccountName").is_empty() {
        "a mirror pod may not reference service accounts"
    } else if has("secretName") || has("secretKeyRef") || has("secretRef") || has("imagePullSecrets") {
        "a mirror pod may not reference secrets"
    } else if has("serviceAccountToken") {
        "a mirror pod may not use ServiceAccountToken volume projections"
    } else {
        return Ok(());
    };
    Err(context.forbidden(pod, why))
}

/// Mounts the token's volume into each container that has nothing at its place.
fn mount(pod: &mut Document, context: &Context<'_>) {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut names = pod.list_at("/spec/volumes").iter().map(|volume| text(volume, "name"));
    let existing = names.find(|name| name.starts_with(PREFIX));
    let name = existing.clone().unwrap_or_else(|| format!("{PREFIX}{}", suffix(pod, context)));
    let mut mounted = false;
    for list in CONTAINERS {
        let Some(containers) = pod.at_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| text(mount, "mountPath") != MOUNT) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT}));
                mounted = true;
            }
        }
    }
    if mounted && existing.is_none() {
        push(pod, "/spec/volumes", volume(&name));
    }
}

/// From the request, so that a write that is tried again does not change it.
fn suffix(pod: &Document, context: &Context<'_>) -> String {
    let mut hash = DefaultHasher::new();
    let name = (context.namespace(), pod.name(), pod.str_at("/metadata/generateName"), pod.uid());
    (name, context.now.as_nanosecond()).hash(&mut hash);
    Entropy::new(hash.finish()).name_suffix()
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": LIFE_S}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

/// An account may say that its pods use only the secrets that it lists.
fn secrets(pod: &Document, account: &Document, context: &Context<'_>) -> StatusResult<()> {
    if !matches!(account.annotation(ENFORCE), Some("true" | "1" | "t" | "T" | "TRUE" | "True")) {
        return Ok(());
    }
    let listed = |name: &str| account.list_at("/secrets").iter().any(|s| s.get("name").is_some_and(|n| n == name));
    let owner = account.name();
    let volumes = pod.list_at("/spec/volumes").iter();
    let named = volumes.filter_map(|volume| volume.pointer("/secret/secretName")?.as_str());
    let refused = named.into_iter().find(|name| !listed(name)).map(|name| {
        format!("volume with secret.secretName=\"{name}\" is not allowed because service account {owner} does not reference that secret")
    });
    let refused = refused.or_else(|| environment(pod, owner, listed));
    refused.map_or(Ok(()), |why| Err(context.forbidden(pod, why)))
}

fn environment(pod: &Document, owner: &str, listed: impl Fn(&str) -> bool) -> Option<String> {
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    for (list, kind) in CONTAINERS.iter().zip(["init container", "container"]) {
        for container in pod.list_at(list) {
            let name = text(container, "/name").unwrap_or_default();
            let items = |key: &str| container.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            for env in items("env") {
                let variable = text(&env, "/name").unwrap_or_default();
                if let Some(secret) = text(&env, "/valueFrom/secretKeyRef/name").filter(|s| !listed(s)) {
                    return Some(format!(
                        "{kind} {name} with envVar {variable} referencing secret.secretName=\"{secret}\" is not allowed because service account {owner} does not reference that secret"
                    ));
                }
            }
            for env in items("envFrom") {
                if let Some(secret) = text(&env, "/secretRef/name").filter(|s| !listed(s)) {
                    return Some(format!(
                        "{kind} {name} with envFrom referencing secret.secretName=\"{secret}\" is not allowed because service account {owner} does not reference that secret"
                    ));
                }
            }
        }
    }
    None
}
