//! `cargo xtask e2e`: proofs of the whole that take longer than CI has time for.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

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
}

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
