//! `cargo xtask e2e`: proofs of the whole that take longer than CI has time for.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::bench::peer;
use crate::packages;
use crate::run::{cargo, root, show, with_path};

/// What can be proved.
#[derive(Subcommand)]
pub(crate) enum E2e {
    /// The cluster on three QEMU machines with Debian's kernel and cgroup v2 alone; power and network are cut.
    Vm,
    /// An operator on controller-runtime (needs Go), with webhooks, a finalizer and leader election.
    Operator {
        /// Run it against this cluster instead of one of our own, as a comparison.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
    /// Upstream's scheduler, controllers and API server, each in the place of ours.
    Upstream {
        /// Where kube-scheduler, kube-controller-manager, kube-apiserver and etcd lie.
        #[arg(long)]
        peers: PathBuf,
    },
}

/// Where the cluster of a proof has its etcd.
const ETCD: &str = "http://127.0.0.1:2379";

/// Installs what is needed, builds for release, proves.
pub(crate) fn run(proof: &E2e) -> Result<()> {
    let mut tools = packages::install()?;
    let mut command = cargo();
    command.args(["run", "--quiet", "--locked", "--package", "e2e", "--example"]);
    match proof {
        E2e::Vm => {
            packages::install_for_machines()?;
            command.arg("machines");
        }
        E2e::Operator { kubeconfig } => {
            command.args(["operator", "--"]).args(kubeconfig).env("OPERATOR", operator()?);
        }
        E2e::Upstream { peers } => {
            let peer = std::path::absolute(root().join("target/peer"))?;
            fs::create_dir_all(&peer)?;
            peer::identity(&peer)?;
            fs::write(peer.join("arguments"), peer::apiserver_arguments(&peer, ETCD).join(" "))?;
            command.arg("upstream").env("PEERS", std::path::absolute(peers)?).env("PEER", peer);
        }
    }
    show(cargo().args(["build", "--release", "--locked", "--package", "cli"]))?;
    let program = cargo_metadata::MetadataCommand::new().no_deps().exec()?.target_directory;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let program = program.join(triple).join("release/trimtab");
    tools.push(program.parent().context("no folder of programs")?.as_std_path().to_owned());
    show(with_path(command.env("TRIMTAB", &program), &tools)?)
}

fn operator() -> Result<PathBuf> {
    let folder = root().join("e2e/operator");
    let program = std::path::absolute(root().join("target/operator"))?;
    let mut build = Command::new("go");
    build.arg("-C").arg(folder).args(["build", "-o"]).arg(&program).arg(".").env("CGO_ENABLED", "0");
    show(&mut build)?;
    Ok(program)
}
