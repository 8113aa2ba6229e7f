//! `trimtab delete`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::files::Files;
use super::resources::{Resource, Resources, aims};
use super::session::{Connection, Session, is_not_found, query};
use super::value::{list, text, text_at};
use super::wait::{Until, until};

/// What becomes of the objects that an object owns.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cascade {
    Background,
    Foreground,
    Orphan,
}

/// Deletes objects and waits until they are gone.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  trimtab delete pod web\n  trimtab delete -f web.yaml\n  trimtab delete pods -l app=web\n  \
    trimtab delete pod web --grace-period=0 --force\n  trimtab delete deployment web --cascade=orphan"
)]
pub(crate) struct Delete {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all.
    #[arg(value_name = "TYPE[/NAME]")]
    what: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    at: Connection,
    /// Only objects with these labels.
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// Only objects with these fields.
    #[arg(long, default_value = "")]
    field_selector: String,
    /// All objects of the type.
    #[arg(long)]
    all: bool,
    /// All namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// What becomes of what the objects own.
    #[arg(long, value_enum, default_value = "background")]
    cascade: Cascade,
    /// Seconds for an orderly end; -1 is the object's own.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// At once, without waiting for the node to confirm.
    #[arg(long)]
    force: bool,
    /// The same as --grace-period=1.
    #[arg(long)]
    now: bool,
    /// Success also where there is nothing.
    #[arg(long)]
    ignore_not_found: bool,
    /// Wait until the objects are gone.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait; 0s is for ever.
    #[arg(long, default_value = "0s", value_parser = super::wait::duration)]
    timeout: Duration,
    /// Change nothing.
    #[arg(long, num_args = 0..=1, default_missing_value = "server", require_equals = true, default_value = "none")]
    dry_run: String,
    /// name: only TYPE/NAME.
    #[arg(long, short)]
    output: Option<String>,
}

/// One object to delete.
struct Target {
    resource: Resource,
    namespace: String,
    name: String,
}

/// Deletes them.
pub(crate) async fn run(delete: Delete) -> Result<ExitCode> {
    let session = delete.at.open()?;
    let resources = Resources::discover(&session).await?;
    let mut code = ExitCode::SUCCESS;
    let targets = targets(&delete, &session, &resources).await?;
    if targets.is_empty() {
        eprintln!("No resources found");
        return Ok(code);
    }
    let mut going = Vec::new();
    for target in targets {
        match one(&delete, &session, &target).await {
            Ok(uid) => going.push((target, uid)),
            Err(error) if delete.ignore_not_found && is_not_found(&error) => {}
            Err(error) => {
                eprintln!("{}", super::worded(&error));
                code = ExitCode::FAILURE;
            }
        }
    }
    if delete.wait && delete.dry_run == "none" && !delete.force {
        for (target, uid) in going {
            let path = target.resource.object(&target.namespace, &target.name);
            until(&session, &path, &Until::Gone(uid), delete.timeout).await?;
        }
    }
    Ok(code)
}

async fn targets(delete: &Delete, session: &Session, resources: &Resources) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    if !delete.files.filename.is_empty() {
        for (_, object) in delete.files.objects()?.into_iter().rev() {
            let resource = resources.of_object(text(&object, "apiVersion"), text(&object, "kind"))?.clone();
            let own = text_at(&object, "/metadata/namespace");
            let namespace = if own.is_empty() { session.namespace.clone() } else { own.to_owned() };
            targets.push(Target { resource, namespace, name: text_at(&object, "/metadata/name").into() });
        }
        return Ok(targets);
    }
    for aim in aims(&delete.what, resources)? {
        let named = |name: &String| Target {
            resource: aim.resource.clone(),
            namespace: session.namespace.clone(),
            name: name.clone(),
        };
        targets.extend(aim.names.iter().map(named));
        if aim.names.is_empty() {
            if delete.selector.is_empty() && delete.field_selector.is_empty() && !delete.all {
                bail!("resource(s) were provided, but no name was specified");
            }
            targets.extend(selected(delete, session, &aim.resource).await?);
        }
    }
    Ok(targets)
}

async fn selected(delete: &Delete, session: &Session, resource: &Resource) -> Result<Vec<Target>> {
    let namespace = if delete.all_namespaces { "" } else { session.namespace.as_str() };
    let pairs = [("labelSelector", delete.selector.as_str()), ("fieldSelector", delete.field_selector.as_str())];
    let found = session.get(&format!("{}{}", resource.path(namespace), query(&pairs))).await?;
    let target = |item: &Value| Target {
        resource: resource.clone(),
        namespace: text_at(item, "/metadata/namespace").into(),
        name: text_at(item, "/metadata/name").into(),
    };
    Ok(list(&found, "items").iter().map(target).collect())
}

/// Asks the server; returns the object's uid.
async fn one(delete: &Delete, session: &Session, target: &Target) -> Result<String> {
    let policy = match delete.cascade {
        Cascade::Background => "Background",
        Cascade::Foreground => "Foreground",
        Cascade::Orphan => "Orphan",
    };
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    let grace = match (delete.force, delete.now, delete.grace_period) {
        (true, ..) => Some(0),
        (_, true, _) => Some(1),
        (_, _, seconds) if seconds >= 0 => Some(seconds),
        _ => None,
    };
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = seconds.into();
    }
    let dry = if delete.dry_run == "none" { "" } else { "All" };
    let path = format!("{}{}", target.resource.object(&target.namespace, &target.name), query(&[("dryRun", dry)]));
    let answer = session.write(Method::DELETE, &path, &options).await?;
    report(delete, target);
    let uid = match text(&answer, "kind") {
        "Status" => text_at(&answer, "/details/uid"),
        _ => text_at(&answer, "/metadata/uid"),
    };
    Ok(uid.to_owned())
}

fn report(delete: &Delete, target: &Target) {
    let (kind, name) = (target.resource.name(), &target.name);
    if delete.output.as_deref() == Some("name") {
        println!("{kind}/{name}");
        return;
    }
    let how = if delete.force { " force" } else { "" };
    let place =
        if target.resource.namespaced { format!(" from {} namespace", target.namespace) } else { String::new() };
    let dry = if delete.dry_run == "none" { "" } else { " (server dry run)" };
    println!("{kind} \"{name}\"{how} deleted{place}{dry}");
}
