//! `cargo xtask soak`: the tests that nothing is lost, left or waited for in vain, at full size and built for speed.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::run::{cargo, show};

/// Ten thousand containers that come and go while the agent is killed at random moments, and five hundred runs of
/// `trimtab oci run` under load. Needs root.
#[derive(Args)]
pub(crate) struct Soak {
    /// Which one; both unless one is named.
    what: Option<What>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Containers of a killed agent (`node-agent/tests/all/soak.rs`).
    Agent,
    /// Runs under load (`runtime/core/tests/all/load.rs`).
    Runs,
}

/// Builds the programs that the tests start, then runs one after the other.
pub(crate) fn run(arguments: &Soak) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--bins", "--examples"]);
    show(build.args(["--package", "cli", "--package", "node-agent", "--package", "runtime-core"]))?;
    let all = [(What::Agent, "node-agent", "soak::"), (What::Runs, "runtime-core", "load::")];
    for (_, package, test) in all.into_iter().filter(|(what, ..)| arguments.what.is_none_or(|only| only == *what)) {
        let mut command = cargo();
        command.args(["test", "--release", "--locked", "--package", package, "--test", "all", test]);
        command.args(["--", "--nocapture"]).env("TRIMTAB_SOAK_FULL", "1").env("TRIMTAB_PROGRAM", program()?);
        show(&mut command)?;
    }
    Ok(())
}

/// `target/<triple>/debug/xtask` -> `target/<triple>/release/trimtab`.
fn program() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("xtask lies in no target directory")?;
    Ok(folder.join("release/trimtab"))
}
