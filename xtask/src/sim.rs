//! `cargo xtask sim`: more seeds of the simulations than the tests run.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::run::{cargo, show};

/// Runs seeds of the simulations: a storm of faults, then a calm in which all must converge.
///
/// A seed that fails prints what happened and the line that replays it.
#[derive(Args)]
pub(crate) struct Sim {
    /// Which one; all of them unless one is named.
    what: Option<What>,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The controllers against a model of the API server (`controller::model`).
    Controllers,
    /// The members of a group of embedded stores (`store::model`).
    Store,
}

/// Builds the simulations for speed and runs them.
pub(crate) fn run(arguments: &Sim) -> Result<()> {
    let all = [(What::Controllers, "controller"), (What::Store, "store")];
    for (_, package) in all.into_iter().filter(|(what, _)| arguments.what.is_none_or(|wanted| wanted == *what)) {
        let mut command = cargo();
        command.args(["run", "--quiet", "--release", "--locked", "--package", package]);
        command.args(["--features", "model", "--example", "sim", "--"]);
        command.args(["--seeds", &arguments.seeds.to_string(), "--from", &arguments.from.to_string()]);
        show(&mut command)?;
    }
    Ok(())
}
