//! Images: found in the store or pulled.

use std::time::Instant;

use k8s_openapi::api::core::v1::{Pod, Secret};
use node_plan::observed::ImageFacts;
use node_plan::step::{PullFailure, Pulled};
use node_plan::{Fact, PullPolicy};
use runtime_image::{Auth, Error, Image, PullOptions};

use super::Performer;
use crate::chain;

/// Finds an image, or pulls it when the policy says so.
pub(super) async fn pull(
    p: &Performer,
    pod: &Pod,
    container: &str,
    name: &str,
    policy: PullPolicy,
) -> Result<Pulled, PullFailure> {
    let found = match policy {
        PullPolicy::Always => None,
        PullPolicy::IfNotPresent | PullPolicy::Never => local(p, name).await?,
    };
    match (found, policy) {
        (Some(image), _) => Ok(Pulled { image: facts(name, &image), fetched: None }),
        (None, PullPolicy::Never) => Err(PullFailure::Never),
        (None, _) => {
            p.tell(Fact::Pulling { container: container.into() }).await;
            fetch(p, pod, name).await
        }
    }
}

async fn local(p: &Performer, name: &str) -> Result<Option<Image>, PullFailure> {
    let (images, name) = (p.agent.images.clone(), name.to_owned());
    let found = tokio::task::spawn_blocking(move || images.get(&name)).await;
    match found {
        Ok(Ok(image)) => Ok(image),
        Ok(Err(error)) => Err(failure(&error)),
        Err(error) => Err(PullFailure::Failed(error.to_string())),
    }
}

fn failure(error: &Error) -> PullFailure {
    match error {
        Error::Reference(_) => PullFailure::InvalidName(error.to_string()),
        error => PullFailure::Failed(chain(error)),
    }
}

/// Each credential that fits is tried, then none.
async fn fetch(p: &Performer, pod: &Pod, name: &str) -> Result<Pulled, PullFailure> {
    let begun = Instant::now();
    let options = PullOptions { registries: p.agent.config.registries.clone(), ..PullOptions::default() };
    let mut last = None;
    for auth in credentials(p, pod, name).await {
        match p.agent.images.pull(name, &auth, &options, |_| {}).await {
            Ok(image) => {
                let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Ok(Pulled { image: facts(name, &image), fetched: Some((ms, image.size_bytes)) });
            }
            Err(error @ Error::Unauthorized(_)) => last = Some(failure(&error)),
            Err(error) => return Err(failure(&error)),
        }
    }
    Err(last.unwrap_or_else(|| PullFailure::Failed("no credentials".into())))
}

fn facts(name: &str, image: &Image) -> ImageFacts {
    let shown = image.names.first().cloned().unwrap_or_else(|| name.to_owned());
    ImageFacts {
        name: shown,
        reference: image.digests.first().cloned().unwrap_or_else(|| image.id.clone()),
        id: image.id.clone(),
        stop_signal: image.config.stop_signal().clone(),
    }
}

/// What the pod's pull secrets hold for the image's registry, then nobody.
async fn credentials(p: &Performer, pod: &Pod, image: &str) -> Vec<Auth> {
    let held = p.hold.values().await;
    let names = pod.spec.as_ref().and_then(|s| s.image_pull_secrets.clone()).unwrap_or_default();
    let mut list: Vec<Auth> =
        names.iter().filter_map(|n| held.secrets.get(&n.name)).flat_map(|s| of_secret(s, image)).collect();
    list.push(Auth::Anonymous);
    list
}

/// The registry of an image: what stands before the first slash, if it can be a host.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn of_secret(secret: &Secret, image: &str) -> Vec<Auth> {
    let data = secret.data.as_ref();
    let file = data.and_then(|d| d.get(".dockerconfigjson").or_else(|| d.get(".dockercfg")));
    let Some(json) = file.and_then(|f| serde_json::from_slice::<serde_json::Value>(&f.0).ok()) else {
        return Vec::new();
    };
    let hosts = json.get("auths").unwrap_or(&json).as_object().cloned().unwrap_or_default();
    let wanted = registry(image);
    let fits = |host: &str| {
        let bare = host.trim_start_matches("https://").trim_start_matches("http://");
        let bare = bare.split('/').next().unwrap_or_default();
        bare == wanted || (wanted == "docker.io" && bare == "index.docker.io")
    };
    hosts.iter().filter(|(host, _)| fits(host)).filter_map(|(_, entry)| auth(entry)).collect()
}

fn auth(entry: &serde_json::Value) -> Option<Auth> {
    use base64::Engine;
    let text = |key: &str| entry.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(Auth::Basic { username, password });
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?;
    let decoded = String::from_utf8(bytes).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(Auth::Basic { username: username.into(), password: password.into() })
}
