//! Revisions: which template a ReplicaSet stood for, in annotations that `kubectl rollout` reads.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations that a ReplicaSet does not take over from its Deployment.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The most characters of the history of revisions.
const HISTORY_CHARS: usize = 2000;

/// The revision of a ReplicaSet or Deployment.
pub(super) fn of(meta: &ObjectMeta) -> Option<&str> {
    meta.annotations.as_ref()?.get(REVISION).map(String::as_str)
}

/// Gives the new ReplicaSet the Deployment's annotations and a revision that is not behind `revision`. A ReplicaSet
/// that was current before keeps its old revisions as history.
pub(super) fn annotate(set: &mut BTreeMap<String, String>, deployment: &ObjectMeta, revision: i64) {
    let copied = deployment.annotations.iter().flatten().filter(|(key, _)| !OWN.contains(&key.as_str()));
    set.extend(copied.map(|(k, v)| (k.clone(), v.clone())));
    let old = set.get(REVISION).cloned();
    let Ok(number) = old.as_deref().unwrap_or("0").parse::<i64>() else { return };
    if number >= revision {
        return;
    }
    set.insert(REVISION.into(), revision.to_string());
    if let Some(old) = old {
        let history = set.get(HISTORY).map(String::as_str).unwrap_or_default();
        let history = appended(history, &old);
        set.extend(history.map(|h| (HISTORY.to_owned(), h)));
    }
}

fn appended(history: &str, revision: &str) -> Option<String> {
    if history.is_empty() {
        return Some(revision.into());
    }
    let mut kept = history;
    while kept.len() + revision.len() + 1 > HISTORY_CHARS {
        kept = kept.split_once(',')?.1;
    }
    Some(format!("{kept},{revision}"))
}
