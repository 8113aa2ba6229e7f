//! `trimtab rollout`.

mod history;
mod status;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use api::{Timestamp, time};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::resources::{Resource, Resources, aims};
use super::session::{Connection, Session, patch};
use super::value::text_at;

/// How a workload moves from one template to the next.
#[derive(Args, Debug)]
pub(crate) struct Rollout {
    #[command(subcommand)]
    command: Command,
}

/// A workload, and where it is.
#[derive(Args, Debug)]
struct About {
    /// TYPE NAME or TYPE/NAME, of a Deployment, DaemonSet or StatefulSet.
    #[arg(value_name = "TYPE[/NAME]", required = true)]
    what: Vec<String>,
    #[command(flatten)]
    at: Connection,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Shows progress until the rollout is complete.
    #[command(after_help = "Example:\n  trimtab rollout status deploy/web --timeout=60s")]
    Status {
        #[command(flatten)]
        about: About,
        /// Go on until it is complete.
        #[arg(long, short, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
        watch: bool,
        /// How long it may take; 0s is for ever.
        #[arg(long, default_value = "0s", value_parser = super::wait::duration)]
        timeout: Duration,
    },
    /// Shows earlier templates.
    #[command(
        after_help = "Examples:\n  trimtab rollout history deploy/web\n  trimtab rollout history deploy/web --revision=2"
    )]
    History {
        #[command(flatten)]
        about: About,
        /// The template of this revision.
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// Goes back to an earlier template.
    #[command(
        after_help = "Examples:\n  trimtab rollout undo deploy/web\n  trimtab rollout undo deploy/web --to-revision=2"
    )]
    Undo {
        #[command(flatten)]
        about: About,
        /// The revision; 0 is the one before.
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Replaces all pods.
    #[command(after_help = "Example:\n  trimtab rollout restart deploy/web")]
    Restart {
        #[command(flatten)]
        about: About,
    },
    /// Holds a rollout.
    Pause {
        #[command(flatten)]
        about: About,
    },
    /// Lets a held rollout go on.
    Resume {
        #[command(flatten)]
        about: About,
    },
}

/// One workload that a command is about.
struct Workload {
    resource: Resource,
    namespace: String,
    name: String,
}

impl Workload {
    fn path(&self) -> String {
        self.resource.object(&self.namespace, &self.name)
    }

    /// `deployment.apps/web`.
    fn label(&self) -> String {
        format!("{}/{}", self.resource.name(), self.name)
    }
}

/// Does it.
pub(crate) async fn run(rollout: Rollout) -> Result<ExitCode> {
    match rollout.command {
        Command::Status { about, watch, timeout } => {
            for (session, workload) in workloads(&about).await? {
                status::follow(&session, &workload, watch, timeout).await?;
            }
        }
        Command::History { about, revision } => {
            for (session, workload) in workloads(&about).await? {
                history::show(&session, &workload, revision).await?;
            }
        }
        Command::Undo { about, to_revision } => {
            for (session, workload) in workloads(&about).await? {
                history::undo(&session, &workload, to_revision).await?;
            }
        }
        Command::Restart { about } => {
            for (session, workload) in workloads(&about).await? {
                restart(&session, &workload).await?;
            }
        }
        Command::Pause { about } => pause(&about, true).await?,
        Command::Resume { about } => pause(&about, false).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn workloads(about: &About) -> Result<Vec<(Session, Workload)>> {
    let session = about.at.open()?;
    let resources = Resources::discover(&session).await?;
    let mut all = Vec::new();
    for aim in aims(&about.what, &resources)? {
        if !matches!(aim.resource.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
            bail!("no rollouts for {}", aim.resource.plural_name());
        }
        if aim.names.is_empty() {
            bail!("required resource name not specified");
        }
        for name in &aim.names {
            let workload =
                Workload { resource: aim.resource.clone(), namespace: session.namespace.clone(), name: name.clone() };
            all.push((session.clone(), workload));
        }
    }
    Ok(all)
}

async fn restart(session: &Session, workload: &Workload) -> Result<()> {
    let object = session.get(&workload.path()).await?;
    if object.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        bail!("can't restart paused deployment (run rollout resume first)");
    }
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": time::rfc3339(Timestamp::now())});
    let body = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    session.patch(&workload.path(), patch::STRATEGIC, &body).await?;
    println!("{} restarted", workload.label());
    Ok(())
}

async fn pause(about: &About, pause: bool) -> Result<()> {
    for (session, workload) in workloads(about).await? {
        if workload.resource.kind != "Deployment" {
            bail!("{} cannot be paused", workload.resource.plural_name());
        }
        let object = session.get(&workload.path()).await?;
        let paused = object.pointer("/spec/paused") == Some(&Value::Bool(true));
        if paused == pause {
            let state = if pause { "already paused" } else { "not paused" };
            bail!("{} {:?} is {state}", workload.resource.plural_name(), text_at(&object, "/metadata/name"));
        }
        session.patch(&workload.path(), patch::MERGE, &json!({"spec": {"paused": pause}})).await?;
        println!("{} {}", workload.label(), if pause { "paused" } else { "resumed" });
    }
    Ok(())
}
