//! Signals, and taking away what a pod had.

use std::fs;
use std::io;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use node_plan::observed::Observed;
use runtime_core::pod::Shim;

use super::{Performer, files, sandbox};
use crate::worker::{send_status, status_patch};
use crate::{blocking, chain};

/// Sends a signal. A run that has ended is no error; a kill reaches every process of the run.
pub(super) async fn signal(p: &Performer, run: String, signal: i32, kill: bool) {
    let Ok(shim) = p.shim() else { return };
    let sent = blocking(move || shim.signal(&run, signal, kill).map_err(|error| chain(&error))).await;
    if let Err(error) = sent {
        tracing::warn!(error, signal, "a signal was not sent");
    }
}

/// Forgets an ended run and its writable layer.
pub(super) async fn remove(p: &Performer, run: &str) {
    let (shim, run, paths) = (p.shim(), run.to_owned(), p.paths.clone());
    let removed = blocking(move || {
        if let Ok(shim) = shim {
            shim.remove_container(&run).map_err(|error| chain(&error))?;
        }
        let _ = fs::remove_file(paths.message(&run));
        files::remove_tree(&paths.scratch(&run)).map_err(|error| error.to_string())
    });
    if let Err(error) = removed.await {
        tracing::warn!(error, "an ended container was not removed whole");
    }
}

/// Removes everything but logs and memory.
pub(super) async fn tear_down(p: &Performer, pod: &Pod) -> Result<(), String> {
    let (paths, users) = (p.paths.clone(), p.agent.users.clone());
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    p.shim.lock().take();
    blocking(move || {
        if paths.run.exists() {
            Shim::destroy(&paths.run).map_err(|error| chain(&error))?;
        }
        for folder in ["volumes", "shm", "etc", "containers", "messages"] {
            files::remove_tree(&paths.data.join(folder)).map_err(|error| format!("{folder}: {error}"))?;
        }
        users.release(&uid).map_err(|error| format!("release a range of user ids: {error}"))
    })
    .await?;
    if sandbox::on_host_network(pod) {
        return Ok(());
    }
    let network = p.agent.network.borrow().clone();
    let network = network.ok_or("the node's network is not ready")?;
    network.detach(pod.metadata.uid.as_deref().unwrap_or_default()).await.map_err(|error| chain(&error))
}

/// Reports the last status and deletes the API object, then removes logs and memory.
pub(super) async fn forget(p: &Performer, pod: &Pod, seen: &Observed) -> Result<(), String> {
    if !seen.gone {
        report(p, pod, seen).await.map_err(|error| chain(&error))?;
        delete(p, pod).await.map_err(|error| chain(&error))?;
    }
    let paths = p.paths.clone();
    blocking(move || {
        for folder in [&paths.logs, &paths.data] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
                _ => {}
            }
        }
        Ok(())
    })
    .await
}

async fn report(p: &Performer, pod: &Pod, seen: &Observed) -> Result<(), kube::Error> {
    let next = node_plan::status(pod, seen, &p.agent.facts, api::Timestamp::now());
    let Some(patch) = status_patch(pod, &next) else { return Ok(()) };
    match send_status(p.agent.client.clone(), pod, patch).await {
        // A status that is refused for what it says must not keep the pod for ever.
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
            tracing::warn!(message = status.message, pod = pod.metadata.name, "a pod's last status was refused");
            Ok(())
        }
        answer => answer.map(drop),
    }
}

/// Only this very pod: one of the same name that came after it is not ours.
async fn delete(p: &Performer, pod: &Pod) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(p.agent.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let uid = pod.metadata.uid.clone();
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    };
    absent_is_fine(api.delete(pod.metadata.name.as_deref().unwrap_or_default(), &params).await.map(drop))
}

/// The pod is gone, or another one has its name.
fn absent_is_fine(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result,
    }
}
