//! `trimtab image`: images of this node, straight in its store, with or without a running agent.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use runtime_image::{Platform, PullOptions, PushOptions, Registries, Store};

use crate::instance::DEFAULT_DATA_DIR;
use crate::registries;

mod login;
mod progress;
mod referrers;
mod show;

/// Images on this node.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  trimtab image ls\n  trimtab image import web.tar\n  \
    trimtab image pull registry.example:5000/web:1\n  trimtab image referrers registry.example:5000/web:1\n  trimtab image tag web:1 registry.example:5000/web:2\n  \
    trimtab image push registry.example:5000/web:2\n  trimtab image export -o web.tar web:1\n  \
    trimtab image rm web:1 && trimtab image prune\n\nCredentials come from Docker's config.json and registries.yaml in \
    the data directory.")]
pub(crate) struct Image {
    #[command(subcommand)]
    action: Action,
    /// The node's data directory, or for who is not root one of his own.
    #[arg(long, global = true, default_value_os_t = default_data_dir())]
    data_dir: PathBuf,
}

fn default_data_dir() -> PathBuf {
    let said = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || said("XDG_DATA_HOME").or_else(|| Some(said("HOME")?.join(".local/share")));
    match home().filter(|_| !rustix::process::geteuid().is_root()) {
        Some(home) => home.join("trimtab"),
        None => PathBuf::from(DEFAULT_DATA_DIR),
    }
}

impl Image {
    /// Gives whoever is not root ids for the files of layers, as far as there are any. Before there are threads.
    pub(crate) fn prepare(&self) {
        let why = runtime_core::rootless::become_root().unwrap_or_else(|error| Some(error.to_string()));
        if let (Some(why), Action::Pull { .. } | Action::Import { .. }) = (why, &self.action) {
            tracing::warn!("layers with files of others than root cannot be unpacked: {why}");
        }
    }
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Lists images.
    #[command(visible_alias = "list")]
    Ls {
        /// json.
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<Output>,
    },
    /// Pulls an image from its registry; what came before an interruption is not fetched again.
    Pull {
        /// Such as `registry.example:5000/web:1` or `web@sha256:...`.
        reference: String,
        /// The image of another platform than this machine's: os/architecture[/variant].
        #[arg(long, value_parser = platform)]
        platform: Option<Platform>,
        /// Bring what refers to the image, too: signatures, lists of contents, attestations.
        #[arg(long)]
        referrers: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Pushes an image to a registry.
    Push {
        /// Name, digest or id.
        image: String,
        /// The name to push it under, where that is not its own.
        target: Option<String>,
        /// Send what came with the image because it refers to it, too.
        #[arg(long)]
        referrers: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Lists what refers to an image at its registry: signatures, lists of contents, attestations.
    #[command(visible_alias = "discover")]
    Referrers {
        /// Such as `registry.example:5000/web:1` or `web@sha256:...`.
        reference: String,
        /// Only those of this artifact type, such as `application/spdx+json`.
        #[arg(long, value_name = "TYPE")]
        artifact_type: Option<String>,
        /// Of an index, what refers to the image of this platform: os/architecture[/variant].
        #[arg(long, value_parser = platform)]
        platform: Option<Platform>,
        /// json.
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<Output>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Imports an OCI layout (directory or tar) or what `docker save` wrote.
    Import {
        /// The archive or directory.
        archive: PathBuf,
        /// The name to give it, where the archive has none or another.
        #[arg(long)]
        name: Option<String>,
    },
    /// Exports images to a tar that is both an OCI layout and a docker-archive, or to the directory of an OCI layout.
    Export {
        /// Names, digests or ids.
        #[arg(required = true)]
        images: Vec<String>,
        /// The file, or `-` for standard output; with `--layout`, the directory.
        #[arg(short, long, value_name = "PATH")]
        output: PathBuf,
        /// Write a directory.
        #[arg(long)]
        layout: bool,
        /// Write what came with the images because it refers to them, too.
        #[arg(long)]
        referrers: bool,
    },
    /// Prints all that is known of images, as JSON.
    Inspect {
        /// Names, digests or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Gives an image another name.
    Tag {
        /// Name, digest or id.
        image: String,
        /// The name; one that another image has leaves that.
        name: String,
    },
    /// Removes images by name, digest or id; blobs stay until `prune`, or until the agent needs room.
    #[command(visible_alias = "remove")]
    Rm {
        /// Names, digests or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Removes what no image needs that has a name or that a pod uses.
    Prune {
        /// Remove also images that have a name but that no pod uses.
        #[arg(short, long)]
        all: bool,
    },
    /// Reads images again and says what is not as it came.
    Verify {
        /// Names, digests or ids; all images where there are none.
        images: Vec<String>,
    },
}

/// How a registry is reached.
#[derive(Args, Debug)]
struct Reach {
    /// Talk plain HTTP to this registry (`host:port`); only ever for one on this machine or in a lab.
    #[arg(long, value_name = "REGISTRY")]
    plain_http: Vec<String>,
}

impl Reach {
    fn registries(self, data_dir: &Path) -> Result<Registries> {
        let mut known = registries::load(data_dir)?;
        known.plain_http.extend(self.plain_http);
        Ok(known)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Json,
}

/// Does what was asked. The exit code is 1 where `verify` found something.
pub(crate) async fn run(arguments: Image) -> Result<ExitCode> {
    let root = arguments.data_dir.join("images");
    let store = Store::open(&root).with_context(|| format!("open the image store {}", root.display()))?;
    match arguments.action {
        Action::Ls { output } => list(&store, output)?,
        Action::Pull { reference, platform, referrers, reach } => {
            let registries = reach.registries(&arguments.data_dir)?;
            let mut options = PullOptions { registries, referrers, ..Default::default() };
            options.platform = platform.unwrap_or(options.platform);
            let auth = login::of(&reference, &mut options.registries)?;
            let layers = progress::Layers::new();
            let pulled = store.pull(&reference, &auth, &options, |step| layers.step(step)).await;
            layers.finish();
            println!("{}", show::line(&pulled?));
        }
        Action::Push { image, target, referrers, reach } => {
            let mut options = PushOptions { registries: reach.registries(&arguments.data_dir)?, referrers };
            let target = target.unwrap_or_else(|| image.clone());
            let auth = login::of(&target, &mut options.registries)?;
            let layers = progress::Layers::new();
            let pushed = store.push(&image, &target, &auth, &options, |step| layers.step(step)).await;
            layers.finish();
            println!("{target}: {}", pushed?);
        }
        Action::Referrers { reference, artifact_type, platform, output, reach } => {
            let registries = reach.registries(&arguments.data_dir)?;
            referrers::run(&reference, platform.as_ref(), artifact_type.as_deref(), output, registries).await?;
        }
        Action::Import { archive, name } => {
            store.import(&archive, name.as_deref())?.iter().for_each(|image| println!("{}", show::line(image)));
        }
        Action::Export { images, output, layout, referrers } => export(&store, &images, &output, layout, referrers)?,
        Action::Inspect { images } => {
            let found = images.iter().map(|name| store.details(name)?.ok_or_else(|| absent(name)));
            let found = found.map(|details| details.map(|details| show::details(&details)));
            println!("{}", serde_json::to_string_pretty(&found.collect::<Result<Vec<_>>>()?)?);
        }
        Action::Tag { image, name } => println!("{}", store.tag(&image, &name)?),
        Action::Rm { images } => {
            for image in images {
                store.get(&image)?.ok_or_else(|| absent(&image))?;
                store.remove(&image)?;
                println!("{image} removed");
            }
        }
        Action::Prune { all } => prune(&store, &arguments.data_dir, all)?,
        Action::Verify { images } => return verify(&store, images),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(store: &Store, output: Option<Output>) -> Result<()> {
    let images = store.list()?;
    match output {
        Some(Output::Json) => {
            let all: Vec<_> = images.iter().map(show::json).collect();
            println!("{}", serde_json::to_string_pretty(&all)?);
        }
        None => {
            println!("{}", show::HEADING);
            images.iter().for_each(|image| println!("{}", show::line(image)));
        }
    }
    Ok(())
}

fn export(store: &Store, images: &[String], output: &Path, layout: bool, referrers: bool) -> Result<()> {
    match (layout, output.to_str()) {
        (true, Some("-")) => bail!("--layout writes a directory: name it with --output"),
        (true, _) => store.export_layout(images, referrers, output)?,
        (false, Some("-")) => {
            let mut out = std::io::BufWriter::with_capacity(1 << 17, std::io::stdout().lock());
            store.export(images, referrers, &mut out)?;
            out.flush()?;
        }
        (false, _) => store.export_file(images, referrers, output)?,
    }
    Ok(())
}

fn prune(store: &Store, data_dir: &Path, all: bool) -> Result<()> {
    let used = node_agent::images_in_use(data_dir);
    if all {
        for image in store.list()?.iter().filter(|image| !used.contains(&image.id) && !image.names.is_empty()) {
            // The program's own image comes from no registry.
            if !image.names.iter().any(|name| name.starts_with("trimtab.local/")) {
                store.remove(&image.id)?;
                println!("{} removed", image.names.join(", "));
            }
        }
    }
    let used: Vec<String> = used.into_iter().collect();
    println!("{} freed", show::size(store.collect(&used)?));
    Ok(())
}

fn verify(store: &Store, images: Vec<String>) -> Result<ExitCode> {
    let all = || Ok::<_, anyhow::Error>(store.list()?.into_iter().map(|image| image.id).collect());
    let images: Vec<String> = if images.is_empty() { all()? } else { images };
    let mut code = ExitCode::SUCCESS;
    for image in images {
        let faults = store.verify(&image)?;
        faults.iter().for_each(|fault| println!("{image}: {fault}"));
        match faults.is_empty() {
            true => println!("{image}: as it came"),
            false => code = ExitCode::FAILURE,
        }
    }
    Ok(code)
}

fn platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| "os/architecture[/variant] is wanted, such as linux/arm64".to_owned())
}

fn absent(image: &str) -> anyhow::Error {
    runtime_image::Error::NotFound(image.to_owned()).into()
}
