//! `trimtab rollout status`: what is still to do, as the object changes.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::{AsyncBufReadExt as _, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::timeout;

use super::Workload;
use crate::verbs::session::{JSON, Session, query};
use crate::verbs::value::{list, number_at, text, text_at};

/// How far a rollout is.
#[derive(Debug, PartialEq)]
struct Progress {
    /// In kubectl's words.
    message: String,
    done: bool,
    /// Replicas that are as wanted, and how many are wanted.
    ready: (i64, i64),
}

/// Shows progress: a bar on a terminal, lines in a pipe.
pub(super) async fn follow(session: &Session, workload: &Workload, watch: bool, time: Duration) -> Result<()> {
    let mut view = View::new();
    let following = progress(session, workload, watch, &mut view);
    if time.is_zero() {
        return following.await;
    }
    match timeout(time, following).await {
        Ok(result) => result,
        Err(_) => bail!("timed out waiting for the condition"),
    }
}

async fn progress(session: &Session, workload: &Workload, watch: bool, view: &mut View) -> Result<()> {
    let (collection, name) = (workload.resource.path(&workload.namespace), &workload.name);
    let fields = format!("metadata.name={name}");
    loop {
        let object = session.get(&workload.path()).await?;
        let found = of(&object, name)?;
        view.show(&found);
        if found.done || !watch {
            return Ok(());
        }
        let version = text_at(&object, "/metadata/resourceVersion");
        let pairs = [("fieldSelector", fields.as_str()), ("watch", "true"), ("resourceVersion", version)];
        let mut lines = session.stream(&format!("{collection}{}", query(&pairs)), JSON).await?.lines();
        while let Some(line) = lines.next().await {
            let event: Value = serde_json::from_str(&line?)?;
            match text(&event, "type") {
                "DELETED" => bail!("object has been deleted"),
                "ERROR" => break,
                _ => {}
            }
            let found = of(event.get("object").unwrap_or(&Value::Null), name)?;
            view.show(&found);
            if found.done {
                return Ok(());
            }
        }
    }
}

/// How far an object's rollout is; an error where it can go no further.
fn of(object: &Value, name: &str) -> Result<Progress> {
    match text(object, "kind") {
        "DaemonSet" => daemon_set(object, name),
        "StatefulSet" => stateful_set(object),
        _ => deployment(object, name),
    }
}

fn observed(object: &Value) -> bool {
    number_at(object, "/metadata/generation") <= number_at(object, "/status/observedGeneration")
}

fn deployment(object: &Value, name: &str) -> Result<Progress> {
    let of = |field: &str| number_at(object, &format!("/status/{field}"));
    let wanted = number_at(object, "/spec/replicas");
    let (updated, available, total) = (of("updatedReplicas"), of("availableReplicas"), of("replicas"));
    let conditions = object.get("status").map_or(&[] as &[Value], |s| list(s, "conditions"));
    let late =
        conditions.iter().any(|c| text(c, "type") == "Progressing" && text(c, "reason") == "ProgressDeadlineExceeded");
    let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
    let (message, done) = if !observed(object) {
        ("Waiting for deployment spec update to be observed...".into(), false)
    } else if late {
        bail!("deployment {name:?} exceeded its progress deadline");
    } else if updated < wanted {
        (format!("{waiting} {updated} out of {wanted} new replicas have been updated..."), false)
    } else if total > updated {
        (format!("{waiting} {} old replicas are pending termination...", total - updated), false)
    } else if available < updated {
        (format!("{waiting} {available} of {updated} updated replicas are available..."), false)
    } else {
        (format!("deployment {name:?} successfully rolled out"), true)
    };
    Ok(Progress { message, done, ready: (available.min(updated), wanted) })
}

fn daemon_set(object: &Value, name: &str) -> Result<Progress> {
    let of = |field: &str| number_at(object, &format!("/status/{field}"));
    if text_at(object, "/spec/updateStrategy/type") != "RollingUpdate" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    let (wanted, updated, available) =
        (of("desiredNumberScheduled"), of("updatedNumberScheduled"), of("numberAvailable"));
    let waiting = format!("Waiting for daemon set {name:?} rollout to finish:");
    let (message, done) = if !observed(object) {
        ("Waiting for daemon set spec update to be observed...".into(), false)
    } else if updated < wanted {
        (format!("{waiting} {updated} out of {wanted} new pods have been updated..."), false)
    } else if available < wanted {
        (format!("{waiting} {available} of {wanted} updated pods are available..."), false)
    } else {
        (format!("daemon set {name:?} successfully rolled out"), true)
    };
    Ok(Progress { message, done, ready: (available.min(updated), wanted) })
}

fn stateful_set(object: &Value) -> Result<Progress> {
    let of = |field: &str| number_at(object, &format!("/status/{field}"));
    if text_at(object, "/spec/updateStrategy/type") != "RollingUpdate" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    let wanted = number_at(object, "/spec/replicas");
    let (ready, updated) = (of("readyReplicas"), of("updatedReplicas"));
    let (now, next) = (text_at(object, "/status/currentRevision"), text_at(object, "/status/updateRevision"));
    let partition = object.pointer("/spec/updateStrategy/rollingUpdate/partition").and_then(Value::as_i64);
    let (message, done) = if !observed(object) || of("observedGeneration") == 0 {
        ("Waiting for statefulset spec update to be observed...".into(), false)
    } else if ready < wanted {
        (format!("Waiting for {} pods to be ready...", wanted - ready), false)
    } else if let Some(goal) = partition.map(|partition| wanted - partition).filter(|goal| updated < *goal) {
        let message = format!(
            "Waiting for partitioned roll out to finish: {updated} out of {goal} new pods have been updated..."
        );
        (message, false)
    } else if partition.is_some() {
        (format!("partitioned roll out complete: {updated} new pods have been updated..."), true)
    } else if now != next {
        let message =
            format!("waiting for statefulset rolling update to complete {updated} pods at revision {next}...");
        (message, false)
    } else {
        let current = of("currentReplicas");
        (format!("statefulset rolling update complete {current} pods at revision {now}..."), true)
    };
    Ok(Progress { message, done, ready: (ready, wanted) })
}

/// What was shown last, and how.
struct View {
    bar: Option<ProgressBar>,
    last: String,
}

impl View {
    fn new() -> Self {
        let bar = stderr().is_terminal().then(|| ProgressBar::new(0));
        if let Some(bar) = &bar
            && let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {wide_msg}")
        {
            bar.set_style(style.progress_chars("━╸ "));
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, last: String::new() }
    }

    fn show(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(u64::try_from(progress.ready.1).unwrap_or_default());
            bar.set_position(u64::try_from(progress.ready.0).unwrap_or_default());
            bar.set_message(progress.message.clone());
        }
        if progress.done {
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            println!("{}", progress.message);
        } else if self.bar.is_none() && self.last != progress.message {
            println!("{}", progress.message);
            self.last.clone_from(&progress.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::of;
    use serde_json::json;

    #[test]
    fn a_deployment_s_rollout_is_told_in_kubectl_s_words() {
        let deployment = |observed: i64, updated: i64, total: i64, available: i64| {
            json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": {
                "observedGeneration": observed, "updatedReplicas": updated, "replicas": total, "availableReplicas": available}})
        };
        let waiting = "Waiting for deployment \"web\" rollout to finish:";
        let cases = [
            (deployment(1, 3, 3, 3), "Waiting for deployment spec update to be observed...".to_owned()),
            (deployment(2, 1, 4, 3), format!("{waiting} 1 out of 3 new replicas have been updated...")),
            (deployment(2, 3, 4, 3), format!("{waiting} 1 old replicas are pending termination...")),
            (deployment(2, 3, 3, 2), format!("{waiting} 2 of 3 updated replicas are available...")),
            (deployment(2, 3, 3, 3), "deployment \"web\" successfully rolled out".to_owned()),
        ];
        for (object, want) in cases {
            assert_eq!(of(&object, "web").map(|p| p.message).ok(), Some(want));
        }
    }
}
