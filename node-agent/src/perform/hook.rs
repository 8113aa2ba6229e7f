//! Lifecycle hooks.

use std::time::Duration;

use api::Timestamp;
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};
use node_plan::Lifecycle;
use node_plan::member::member;
use node_plan::observed::Observed;

use super::{Performer, probe};

/// Runs a hook until it ends or its time is up. The error says why it failed.
pub(super) async fn run(
    p: &Performer,
    pod: &Pod,
    seen: &Observed,
    container: &str,
    run: &str,
    which: Lifecycle,
    deadline: Option<Timestamp>,
) -> Result<(), String> {
    let member = member(pod, container).ok_or("no such container")?;
    let lifecycle = member.container.lifecycle.clone().unwrap_or_default();
    let handler = match which {
        Lifecycle::PostStart => lifecycle.post_start,
        Lifecycle::PreStop => lifecycle.pre_stop,
    };
    let Some(handler) = handler else { return Ok(()) };
    let work = perform(p, seen, &member.container, run, &handler);
    match deadline.map(|at| at.duration_since(Timestamp::now())) {
        None => work.await,
        Some(left) => {
            let left = Duration::try_from(left).unwrap_or_default();
            tokio::time::timeout(left, work).await.unwrap_or_else(|_| Err("the grace period is over".into()))
        }
    }
}

async fn perform(
    p: &Performer,
    seen: &Observed,
    container: &k8s_openapi::api::core::v1::Container,
    run: &str,
    handler: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let (code, output) = probe::exec(p, run, exec.command.clone().unwrap_or_default()).await?;
        return if code == 0 { Ok(()) } else { Err(format!("command exited with {code}: {output}")) };
    }
    if let Some(get) = &handler.http_get {
        return probe::http(container, get, &probe::pod_ip(seen)).await.map(drop);
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
    }
    Ok(())
}
