//! Pods that a word means, and their containers.

use anyhow::{Result, bail};
use api::LabelSelector;
use serde_json::Value;

use super::resources::{Resources, aims};
use super::session::{Session, query};
use super::value::{list, text, text_at};

/// The pods of `NAME`, `pod/NAME`, or of a Deployment, ReplicaSet, StatefulSet, DaemonSet, Job or Service.
/// Those that run come first.
pub(crate) async fn pods_of(session: &Session, resources: &Resources, what: &str) -> Result<Vec<Value>> {
    let what = if what.contains('/') { what.to_owned() } else { format!("pods/{what}") };
    let aims = aims(std::slice::from_ref(&what), resources)?;
    let Some((aim, name)) = aims.first().and_then(|aim| Some((aim, aim.names.first()?))) else {
        bail!("there is no name in {what:?}");
    };
    let object = session.get(&aim.resource.object(&session.namespace, name)).await?;
    if aim.resource.kind == "Pod" {
        return Ok(vec![object]);
    }
    let Some(selector) = selector(&object) else {
        bail!("cannot attach to {}: it selects no pods", aim.resource.name());
    };
    let path = format!("/api/v1/namespaces/{}/pods{}", session.namespace, query(&[("labelSelector", &selector)]));
    let found = session.get(&path).await?;
    let mut pods = list(&found, "items").to_vec();
    pods.sort_by_key(|pod| text_at(pod, "/status/phase") != "Running");
    if pods.is_empty() {
        bail!("no pods found for {what}");
    }
    Ok(pods)
}

/// The selector of something that has pods, as `-l` takes it.
fn selector(object: &Value) -> Option<String> {
    let selector = object.pointer("/spec/selector").filter(|s| s.is_object())?;
    let parsed = if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        LabelSelector::from_object(Some(selector)).ok()?
    } else {
        let pairs = selector.as_object()?.iter();
        LabelSelector::from_labels(pairs.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))))
    };
    Some(parsed.to_string()).filter(|text| !text.is_empty())
}

/// The names of a pod's containers, init containers first.
pub(crate) fn containers(pod: &Value) -> Vec<String> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let kinds = ["initContainers", "containers", "ephemeralContainers"];
    kinds.iter().flat_map(|kind| list(spec, kind)).map(|c| text(c, "name").to_owned()).collect()
}

/// The container that is meant where none is named: the annotated one, else the first.
pub(crate) fn default_container(pod: &Value) -> Option<String> {
    let annotated = text_at(pod, "/metadata/annotations/kubectl.kubernetes.io~1default-container");
    if containers(pod).iter().any(|name| name == annotated) {
        return Some(annotated.to_owned());
    }
    let all = list(pod.get("spec")?, "containers");
    let name = text(all.first()?, "name").to_owned();
    if all.len() > 1 {
        let names: Vec<&str> = all.iter().map(|c| text(c, "name")).collect();
        eprintln!("Defaulted container {name:?} out of: {}", names.join(", "));
    }
    Some(name)
}

/// What is told of a container that the pod does not have.
pub(crate) fn no_container(pod: &Value, name: &str) -> String {
    let pod_name = text_at(pod, "/metadata/name");
    format!("container {name} is not valid for pod {pod_name} out of: {}", containers(pod).join(", "))
}
