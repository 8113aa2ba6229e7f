//! `trimtab apply`: server-side apply.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::files::Files;
use super::resources::Resources;
use super::session::{Connection, Session, patch, query, reason};
use super::value::{text, text_at};
use crate::print::{self, Output};

/// Whether to change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    None,
    Server,
    Client,
}

/// Makes the cluster have the objects of manifests. The server merges and records who set which field.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  trimtab apply -f web.yaml\n  trimtab apply -f manifests/ -R --dry-run=server\n  \
    cat web.yaml | trimtab apply -f -\n  trimtab apply -f web.yaml --force-conflicts")]
pub(crate) struct Apply {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    at: Connection,
    /// Accepted for kubectl's sake: applying is always the server's.
    #[arg(long)]
    server_side: bool,
    /// Take fields over that others set.
    #[arg(long)]
    force_conflicts: bool,
    /// Under which name fields are recorded.
    #[arg(long, default_value = "trimtab")]
    field_manager: String,
    /// Change nothing: `server` lets the server check and answer.
    #[arg(long, value_enum, default_value = "none", default_missing_value = "client", num_args = 0..=1, require_equals = true)]
    dry_run: DryRun,
    /// What to do with fields that the server does not know: Strict, Warn, Ignore.
    #[arg(long, default_value = "Strict", value_name = "HOW")]
    validate: String,
    /// name, json, yaml.
    #[arg(long, short)]
    output: Option<String>,
}

/// Applies them, in the order in which they stand; namespaces and custom resource definitions first.
pub(crate) async fn run(apply: Apply) -> Result<ExitCode> {
    let output = Output::parse(apply.output.as_deref())?;
    let session = apply.at.open()?;
    let mut objects = apply.files.objects()?;
    objects.sort_by_key(|(_, object)| !matches!(text(object, "kind"), "Namespace" | "CustomResourceDefinition"));
    let mut resources = Resources::discover(&session).await?;
    let mut code = ExitCode::SUCCESS;
    for (file, object) in objects {
        // A definition applied just now serves a new kind.
        if resources.of_object(text(&object, "apiVersion"), text(&object, "kind")).is_err() {
            resources = Resources::discover(&session).await?;
        }
        let done = one(&apply, &session, &resources, &object, &output).await;
        if let Err(error) = done.with_context(|| format!("error when applying {file:?}")) {
            eprintln!("{}", super::worded(&error));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

async fn one(apply: &Apply, session: &Session, resources: &Resources, object: &Value, output: &Output) -> Result<()> {
    let resource = resources.of_object(text(object, "apiVersion"), text(object, "kind"))?;
    let name = text_at(object, "/metadata/name");
    let own = text_at(object, "/metadata/namespace");
    anyhow::ensure!(
        own.is_empty() || !session.explicit || own == session.namespace,
        "the namespace from the provided object {own:?} does not match the namespace {:?}. You must pass \
         '--namespace={own}' to perform this operation.",
        session.namespace
    );
    let namespace = if own.is_empty() { session.namespace.as_str() } else { own };
    let path = resource.object(namespace, name);
    let before = session.find(&path).await?;
    let label = format!("{}/{name}", resource.name());
    if apply.dry_run == DryRun::Client {
        let verb = if before.is_some() { "configured" } else { "created" };
        return report(output, &label, object, &format!("{verb} (dry run)"));
    }
    let pairs = [
        ("fieldManager", apply.field_manager.as_str()),
        ("force", if apply.force_conflicts { "true" } else { "" }),
        ("dryRun", if apply.dry_run == DryRun::Server { "All" } else { "" }),
        ("fieldValidation", apply.validate.as_str()),
    ];
    let answer = session.patch(&format!("{path}{}", query(&pairs)), patch::APPLY, object).await;
    let (created, after) = match answer {
        Err(error) if reason(&error) == "Conflict" => {
            return Err(error.context("another manager set these fields; --force-conflicts takes them over"));
        }
        other => other?,
    };
    let version = |object: &Value| text_at(object, "/metadata/resourceVersion").to_owned();
    let verb = match &before {
        _ if created => "created",
        Some(before) if version(before) == version(&after) => "unchanged",
        _ => "configured",
    };
    let dry = if apply.dry_run == DryRun::Server { " (server dry run)" } else { "" };
    report(output, &label, &after, &format!("{verb}{dry}"))
}

fn report(output: &Output, label: &str, object: &Value, verb: &str) -> Result<()> {
    if output.is_table() {
        println!("{label} {verb}");
        return Ok(());
    }
    let label = label.to_owned();
    print!("{}", print::objects(output, std::slice::from_ref(object), &[label], false, true)?);
    Ok(())
}
