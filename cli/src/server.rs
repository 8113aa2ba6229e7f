//! `trimtab server`: a control plane alone.

use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::instance::Instance;
use crate::plane::Plane;
use crate::progress::Progress;
use crate::up::PlaneArguments;

/// Starts a control plane without a node and stays in the foreground.
///
/// Agents join with a token from `trimtab token create`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  trimtab server --listen 0.0.0.0:6443\n  trimtab server --store etcd=http://127.0.0.1:2379"
)]
pub(crate) struct Server {
    #[command(flatten)]
    plane: PlaneArguments,
}

/// Runs until TERM or INT.
pub(crate) async fn run(arguments: Server) -> Result<()> {
    let progress = Progress::new();
    let instance = Instance::open(&arguments.plane.data_dir)?;
    let _lock = instance.lock()?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let options = arguments.plane.options()?;
    progress.step("starting the control plane");
    let plane = Plane::start(&instance, &options).await?;
    progress.done(&format!("API server at https://{}", options.listen));
    progress.finish();
    eprintln!("kubeconfig: {}", instance.admin_kubeconfig().display());
    println!("ready");
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    plane.stop().await;
    Ok(())
}
