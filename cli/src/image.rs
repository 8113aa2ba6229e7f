//! `trimtab image`: the node's image store.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use runtime_image::{Auth, Image as Stored, Progress, PullOptions, Store};

use crate::instance::DEFAULT_DATA_DIR;

/// Images on this node.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  trimtab image ls\n  trimtab image import web.tar\n  trimtab image pull registry.example:5000/web:1\n  trimtab image rm web:1"
)]
pub(crate) struct Image {
    #[command(subcommand)]
    action: Action,
    /// The node's data directory.
    #[arg(long, global = true, default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Lists images.
    #[command(visible_alias = "list")]
    Ls,
    /// Pulls an image from its registry.
    Pull {
        /// Such as `registry.example:5000/web:1` or `web@sha256:...`.
        reference: String,
        /// Talk plain HTTP to this registry (`host:port`); only ever for one on this machine or in a lab.
        #[arg(long, value_name = "REGISTRY")]
        plain_http: Vec<String>,
    },
    /// Imports an OCI layout (directory or tar) or what `docker save` wrote.
    Import {
        /// The archive or directory.
        archive: PathBuf,
        /// The name to give it, where the archive has none or another.
        #[arg(long)]
        name: Option<String>,
    },
    /// Removes an image by name, digest or id.
    #[command(visible_alias = "remove")]
    Rm {
        /// Name, digest or id.
        reference: String,
    },
}

/// Does what was asked.
pub(crate) async fn run(arguments: Image) -> Result<()> {
    let root = arguments.data_dir.join("images");
    let store = Store::open(&root).with_context(|| format!("open the image store {}", root.display()))?;
    match arguments.action {
        Action::Ls => {
            println!("{:<20} {:>9}  NAME", "IMAGE ID", "SIZE");
            store.list()?.iter().for_each(print);
        }
        Action::Pull { reference, plain_http } => {
            let options = PullOptions { plain_http, ..PullOptions::default() };
            print(&store.pull(&reference, &Auth::Anonymous, &options, progress).await?);
        }
        Action::Import { archive, name } => store.import(&archive, name.as_deref())?.iter().for_each(print),
        Action::Rm { reference } => {
            store.get(&reference)?.ok_or_else(|| runtime_image::Error::NotFound(reference.clone()))?;
            store.remove(&reference)?;
            println!("{reference} removed");
        }
    }
    Ok(())
}

fn print(image: &Stored) {
    let id: String = image.id.chars().take(19).collect();
    let names = if image.names.is_empty() { "<none>".to_owned() } else { image.names.join(", ") };
    println!("{id:<20} {:>9}  {names}", size(image.size_bytes));
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn progress(step: Progress) {
    eprintln!("{step:?}");
}
