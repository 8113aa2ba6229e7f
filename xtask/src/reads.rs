//! `cargo xtask reads`: the tests of watches and lists at full size, built for speed.

use anyhow::Result;

use crate::run::{cargo, show};

/// Runs them one after the other, so that each has the machine to itself.
pub(crate) fn run() -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--release", "--locked", "--package", "apiserver", "--test", "all", "reads::"]);
    show(command.args(["--", "--nocapture", "--test-threads", "1"]).env("TRIMTAB_READS_FULL", "1"))
}
