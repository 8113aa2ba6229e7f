//! `cargo xtask attacks`: the tests of attacks at full size: 10,000 starts while somebody swaps directories for links, and
//! a hundred times the mutations of hostile input.

use anyhow::Result;

use crate::run::{cargo, show};

/// Runs them. Without a word on what to build, examples are built too: one of them is the program that the tests start.
pub(crate) fn run() -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--release", "--locked", "--package", "runtime-core", "--package", "runtime-image"]);
    show(command.args(["--", "--nocapture", "attacks::", "mutations::"]).env("TRIMTAB_ATTACKS_FULL", "1"))
}
