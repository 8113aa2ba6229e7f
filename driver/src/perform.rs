//! Performs effects: in order, creations of one kind in growing batches, and stops at the first failure.

use base64::Engine as _;
use futures::StreamExt;
use http::Method;
use reconcile::{Effect, Failure, Notice, PatchKind, Preconditions, Propagation, Resource, Signing, Target, Told};
use serde_json::{Value, json};

use crate::request;
use crate::shared::Shared;

/// The most creations or deletions of one key under way at once.
const BATCH: usize = 32;

/// Performs effects in order. What the server answers goes into the World at once.
pub(crate) async fn all(shared: &Shared, component: &'static str, effects: Vec<Effect>) -> Result<(), Failure> {
    let mut effects = effects.into_iter().peekable();
    while let Some(first) = effects.next() {
        let mut alike = vec![first];
        while let Some(next) = effects.next_if(|e| alike.first().is_some_and(|first| together(first, e))) {
            alike.push(next);
        }
        batches(shared, component, alike).await?;
    }
    Ok(())
}

/// Whether two effects that follow each other may be under way at once.
fn together(first: &Effect, next: &Effect) -> bool {
    match (first, next) {
        (Effect::Create { resource: a, .. }, Effect::Create { resource: b, .. }) => a == b,
        (Effect::Delete { target: a, .. }, Effect::Delete { target: b, .. }) => a.resource == b.resource,
        (Effect::DeleteCollection { .. }, Effect::DeleteCollection { .. }) => true,
        _ => false,
    }
}

/// Creations begin with one and double, as upstream's slow start does; the rest goes at full width.
async fn batches(shared: &Shared, component: &'static str, effects: Vec<Effect>) -> Result<(), Failure> {
    let mut width = if matches!(effects.first(), Some(Effect::Create { .. })) { 1 } else { BATCH };
    let mut rest = effects.into_iter();
    loop {
        let batch: Vec<Effect> = rest.by_ref().take(width).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let requests = batch.into_iter().map(|effect| one(shared, component, effect));
        let results: Vec<Result<(), Failure>> = futures::stream::iter(requests).buffer_unordered(BATCH).collect().await;
        results.into_iter().collect::<Result<(), Failure>>()?;
        width = (width * 2).min(BATCH);
    }
}

async fn one(shared: &Shared, component: &'static str, effect: Effect) -> Result<(), Failure> {
    let Ok(_permit) = shared.requests.acquire().await else { return Ok(()) };
    match effect {
        Effect::Create { resource, namespace, object, told } => {
            let path = request::collection(&resource, &namespace);
            let result = write(shared, &resource, Method::POST, &path, "application/json", &object).await;
            settle(shared, component, told, result.map(Some))
        }
        Effect::Update { target, subresource, object, told } => {
            let path = request::object(&target.resource, &target.object, subresource);
            let result = write(shared, &target.resource, Method::PUT, &path, "application/json", &object).await;
            settle(shared, component, told, gone_is_fine(result))
        }
        Effect::Patch { target, subresource, kind, body, told } => {
            let path = request::object(&target.resource, &target.object, subresource);
            let result = write(shared, &target.resource, Method::PATCH, &path, media(kind), &body).await;
            settle(shared, component, told, gone_is_fine(result))
        }
        Effect::Delete { target, preconditions, propagation, grace_seconds, told } => {
            let options = delete_options(&preconditions, propagation, grace_seconds);
            let result = delete(shared, &target, &preconditions, &options).await;
            settle(shared, component, told, gone_is_fine(result))
        }
        Effect::DeleteCollection { resource, namespace } => {
            let path = request::collection(&resource, &namespace);
            let options = delete_options(&Preconditions::default(), Some(Propagation::Background), None);
            call(shared, Method::DELETE, &path, "application/json", &options).await.map(drop)
        }
        Effect::Post { target, subresource, object, told } => {
            let path = request::object(&target.resource, &target.object, subresource);
            let result = call(shared, Method::POST, &path, "application/json", &object).await;
            let name = json!({"metadata": {"name": target.object.name}});
            settle(shared, component, told, result.map(|_| Some(name.to_string())))
        }
        Effect::Sign(signing) => sign(shared, *signing).await,
        Effect::Event(notice) => {
            shared.recorder.record(component, notice);
            Ok(())
        }
    }
}

/// A 404 about an object that a decision was about: the watch will say so, there is nothing to retry.
fn gone_is_fine(result: Result<String, Failure>) -> Result<Option<String>, Failure> {
    match result {
        Ok(text) => Ok(Some(text)),
        Err(failure) if failure.code == 404 => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Records the Events of an effect.
fn settle(
    shared: &Shared,
    component: &'static str,
    told: Told,
    result: Result<Option<String>, Failure>,
) -> Result<(), Failure> {
    let (notice, text) = match &result {
        Ok(Some(answer)) => (told.done, answer_name(answer)),
        Ok(None) => (None, String::new()),
        Err(failure) if is_terminating(failure) => (None, String::new()),
        Err(failure) => (told.failed, failure.message.clone()),
    };
    if let Some(Notice { about, warning, reason, message }) = notice {
        let message = message.replace("{name}", &text).replace("{error}", &text);
        shared.recorder.record(component, Notice { about, warning, reason, message });
    }
    match result {
        Err(failure) if is_terminating(&failure) => Ok(()),
        other => other.map(drop),
    }
}

/// Creations in a namespace that is being deleted fail for good, and need no Event.
fn is_terminating(failure: &Failure) -> bool {
    failure.code == 403 && failure.message.contains("because it is being terminated")
}

fn answer_name(answer: &str) -> String {
    serde_json::from_str::<reconcile::Partial>(answer).ok().and_then(|p| p.metadata.name).unwrap_or_default()
}

fn media(kind: PatchKind) -> &'static str {
    match kind {
        PatchKind::Merge => "application/merge-patch+json",
        PatchKind::Strategic => "application/strategic-merge-patch+json",
        PatchKind::Json => "application/json-patch+json",
    }
}

fn delete_options(preconditions: &Preconditions, propagation: Option<Propagation>, grace: Option<i64>) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    let mut conditions = serde_json::Map::new();
    conditions.extend(preconditions.uid.iter().map(|uid| ("uid".to_owned(), json!(uid))));
    conditions.extend(preconditions.resource_version.iter().map(|v| ("resourceVersion".to_owned(), json!(v))));
    if !conditions.is_empty() {
        options["preconditions"] = Value::Object(conditions);
    }
    if let Some(propagation) = propagation {
        options["propagationPolicy"] = json!(format!("{propagation:?}"));
    }
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    options
}

async fn call(shared: &Shared, method: Method, path: &str, media: &str, body: &Value) -> Result<String, Failure> {
    let request = request::send(method, path, media, body)?;
    shared.client.request_text(request).await.map_err(request::failure)
}

/// A write whose answer is the object as it is now.
async fn write(
    shared: &Shared,
    resource: &Resource,
    method: Method,
    path: &str,
    media: &str,
    body: &Value,
) -> Result<String, Failure> {
    let answer = call(shared, method, path, media, body).await?;
    overlay(shared, resource, &answer);
    Ok(answer)
}

fn overlay(shared: &Shared, resource: &Resource, answer: &str) {
    let Some(reading) = shared.reading(resource) else { return };
    match reading.read(answer.as_bytes()) {
        Ok(object) => shared.apply(|world, now| world.wrote(resource, object, now)),
        Err(failure) => tracing::warn!(%resource, message = failure.message, "the answer to a write cannot be read"),
    }
}

/// The answer is the object while it lingers (grace, finalizers), and a Status once it is gone.
async fn delete(
    shared: &Shared,
    target: &Target,
    preconditions: &Preconditions,
    options: &Value,
) -> Result<String, Failure> {
    let path = request::object(&target.resource, &target.object, "");
    let answer = call(shared, Method::DELETE, &path, "application/json", options).await?;
    let status = serde_json::from_str::<Value>(&answer).is_ok_and(|v| v["kind"] == "Status");
    match (&preconditions.uid, status) {
        (Some(uid), true) => shared.apply(|world, _| world.wrote_gone(&target.resource, uid)),
        (None, true) => {}
        (_, false) => overlay(shared, &target.resource, &answer),
    }
    Ok(json!({"metadata": {"name": target.object.name}}).to_string())
}

async fn sign(shared: &Shared, signing: Signing) -> Result<(), Failure> {
    let refused = |message: String| Failure { code: 0, reason: "SigningFailed".into(), message };
    let Some(signer) = shared.config.signer.clone() else {
        return Err(refused("this driver has no signer".into()));
    };
    let certificate = signer.sign(&signing).map_err(refused)?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
    let body = json!({"metadata": {"resourceVersion": signing.resource_version}, "status": {"certificate": encoded}});
    let path = request::object(&signing.target.resource, &signing.target.object, "status");
    write(shared, &signing.target.resource, Method::PATCH, &path, media(PatchKind::Merge), &body).await.map(drop)
}
