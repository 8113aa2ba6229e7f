//! `trimtab server`: a control plane alone.

use anyhow::Result;
use clap::Args;

use crate::foreground::Foreground;
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
    let mut foreground = Foreground::start(&arguments.plane).await?;
    foreground.ready();
    foreground.signalled().await;
    foreground.plane.stop().await;
    Ok(())
}
