//! `cargo xtask sim`: more seeds of the simulation than the tests run.

use anyhow::Result;
use clap::Args;

use crate::run::{cargo, show};

/// Runs seeds of the simulation in `controller::model`: a storm of faults, then a calm in which all must converge.
///
/// A seed that fails prints what happened and the line that replays it.
#[derive(Args)]
pub(crate) struct Sim {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

/// Builds the simulation for speed and runs it.
pub(crate) fn run(arguments: &Sim) -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--locked", "--package", "controller"]);
    command.args(["--features", "model", "--example", "sim", "--"]);
    command.args(["--seeds", &arguments.seeds.to_string(), "--from", &arguments.from.to_string()]);
    show(&mut command)
}
