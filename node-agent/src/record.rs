//! Events about pods and the node. Equal ones within ten minutes are counted in one object, as client-go does.

use std::collections::HashMap;
use std::sync::Arc;

use api::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use node_plan::Note;
use node_plan::member::member;
use tokio::sync::mpsc;

/// Events that wait to be sent; more are dropped, since no event is worth a pod's delay.
const QUEUE: usize = 1024;
/// Events that are remembered for counting.
const REMEMBERED: usize = 4096;
/// Seconds within which an equal event is counted.
const AGGREGATE_S: i64 = 600;

/// Sends events from a task of its own.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Event>,
    node: Arc<str>,
}

/// What makes two events equal.
type Key = (String, String, String, String, String);

impl Recorder {
    pub(crate) fn start(client: kube::Client, node: &str, tasks: &mut tokio::task::JoinSet<()>) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        tasks.spawn(send_all(client, events));
        Self { queue, node: node.into() }
    }

    /// Records a note about a pod.
    pub(crate) fn pod(&self, pod: &Pod, note: &Note) {
        let meta = &pod.metadata;
        let path = note.container.as_deref().and_then(|c| member(pod, c)).map(|m| m.field_path());
        let object = ObjectReference {
            api_version: Some("v1".into()),
            field_path: path,
            kind: Some("Pod".into()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            resource_version: meta.resource_version.clone(),
            uid: meta.uid.clone(),
        };
        self.send(object, note.warning, note.reason, &note.message);
    }

    /// Records an event about the node itself.
    pub(crate) fn node(&self, warning: bool, reason: &str, message: &str) {
        let name = Some(self.node.to_string());
        let object = ObjectReference { kind: Some("Node".into()), uid: name.clone(), name, ..Default::default() };
        self.send(object, warning, reason, message);
    }

    /// Records a warning about a service.
    pub(crate) fn service(&self, namespace: &str, name: &str, reason: &str, message: &str) {
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            ..Default::default()
        };
        self.send(object, true, reason, message);
    }

    fn send(&self, object: ObjectReference, warning: bool, reason: &str, message: &str) {
        let now = Timestamp::now();
        let namespace = object.namespace.clone().unwrap_or_else(|| "default".into());
        let name = format!("{}.{:x}", object.name.clone().unwrap_or_default(), now.as_nanosecond());
        let event = Event {
            count: Some(1),
            first_timestamp: Some(Time(now)),
            involved_object: object,
            last_timestamp: Some(Time(now)),
            message: Some(message.into()),
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            reason: Some(reason.into()),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node.to_string()),
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(self.node.to_string()) }),
            type_: Some(if warning { "Warning" } else { "Normal" }.into()),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait");
        }
    }
}

async fn send_all(client: kube::Client, mut events: mpsc::Receiver<Event>) {
    let mut known: HashMap<Key, (String, i32, Timestamp)> = HashMap::new();
    while let Some(event) = events.recv().await {
        let now = Timestamp::now();
        if known.len() >= REMEMBERED {
            known.retain(|_, (.., at)| now.duration_since(*at).as_secs() < AGGREGATE_S);
        }
        let key = key_of(&event);
        let before = known.get(&key).filter(|(.., at)| now.duration_since(*at).as_secs() < AGGREGATE_S).cloned();
        match send(&client, &event, before, now).await {
            Ok(entry) if known.len() < REMEMBERED => {
                known.insert(key, entry);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "an event was refused"),
        }
    }
}

async fn send(
    client: &kube::Client,
    event: &Event,
    before: Option<(String, i32, Timestamp)>,
    now: Timestamp,
) -> Result<(String, i32, Timestamp), kube::Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
    if let Some((name, count, _)) = before {
        let count = count.saturating_add(1);
        let patch = serde_json::json!({"count": count, "lastTimestamp": event.last_timestamp});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok((name, count, now)),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let made = api.create(&PostParams::default(), event).await?;
    Ok((made.metadata.name.unwrap_or_default(), 1, now))
}

fn key_of(event: &Event) -> Key {
    let object = &event.involved_object;
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let subject = if object.kind.as_deref() == Some("Node") { &object.name } else { &object.uid };
    (text(subject), text(&object.field_path), text(&event.reason), text(&event.message), text(&event.type_))
}
