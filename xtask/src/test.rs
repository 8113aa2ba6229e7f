//! `cargo xtask test`: everything that must hold before a change is merged.

use anyhow::Result;

use crate::packages;
use crate::run::{cargo, show, with_path};
use crate::tidy;

/// Installs, then checks and tests.
pub(crate) fn run() -> Result<()> {
    let tools = packages::install()?;
    show(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    show(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    // The stories run the program itself.
    show(cargo().args(["build", "--locked", "--package", "cli"]))?;
    show(with_path(cargo().args(["test", "--workspace", "--locked"]), &tools)?)
}
