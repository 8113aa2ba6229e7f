//! `cargo xtask attacks`: the tests of attacks at full size: 10,000 starts while somebody swaps directories for links, and
//! a hundred times the mutations of hostile input.

use anyhow::Result;

use crate::run::{cargo, show};

/// Packages, and the names of their tests.
const TESTS: [(&str, &[&str]); 3] = [
    ("runtime-core", &["--test", "all", "attacks::"]),
    ("runtime-core", &["--lib", "mutations::"]),
    ("runtime-image", &["--lib", "mutations::"]),
];

/// Runs them one after the other.
pub(crate) fn run() -> Result<()> {
    for (package, words) in TESTS {
        let mut command = cargo();
        // The race needs the program that the tests start; so all of the package is built.
        command.args(["test", "--release", "--locked", "--package", package]).args(words);
        show(command.args(["--", "--nocapture"]).env("TRIMTAB_ATTACKS_FULL", "1"))?;
    }
    Ok(())
}
