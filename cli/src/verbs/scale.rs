//! `trimtab scale`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::resources::{Resources, aims};
use super::session::{Connection, patch, query};
use super::value::{list, number_at, text_at};

/// Sets how many replicas there are.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  trimtab scale deployment web --replicas=3\n  trimtab scale deploy/web rs/x --replicas=0\n  \
    trimtab scale deploy/web --current-replicas=2 --replicas=3"
)]
pub(crate) struct Scale {
    /// TYPE NAME... or TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME]", required = true)]
    what: Vec<String>,
    #[command(flatten)]
    at: Connection,
    /// How many.
    #[arg(long)]
    replicas: u32,
    /// Only where there are so many now.
    #[arg(long)]
    current_replicas: Option<i64>,
    /// Objects with these labels.
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// All objects of the type.
    #[arg(long)]
    all: bool,
}

/// Sets it.
pub(crate) async fn run(scale: Scale) -> Result<ExitCode> {
    let session = scale.at.open()?;
    let resources = Resources::discover(&session).await?;
    for mut aim in aims(&scale.what, &resources)? {
        if aim.names.is_empty() && scale.selector.is_empty() && !scale.all {
            bail!("resource(s) were provided, but no name was specified");
        }
        if aim.names.is_empty() {
            let path =
                format!("{}{}", aim.resource.path(&session.namespace), query(&[("labelSelector", &scale.selector)]));
            let found = session.get(&path).await?;
            aim.names = list(&found, "items").iter().map(|o| text_at(o, "/metadata/name").to_owned()).collect();
        }
        for name in &aim.names {
            let path = format!("{}/scale", aim.resource.object(&session.namespace, name));
            if let Some(wanted) = scale.current_replicas {
                let now = number_at(&session.get(&path).await?, "/spec/replicas");
                if now != wanted {
                    bail!("Expected replicas to be {wanted}, was {now}");
                }
            }
            let body = json!({"spec": {"replicas": scale.replicas}});
            session.patch(&path, patch::MERGE, &body).await?;
            println!("{}/{name} scaled", aim.resource.name());
        }
    }
    Ok(ExitCode::SUCCESS)
}
