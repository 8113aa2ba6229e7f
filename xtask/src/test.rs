//! `cargo xtask test`: everything that must hold before a change is merged.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::packages;
use crate::run::{cargo, show};
use crate::tidy;

/// Installs, then checks and tests.
pub(crate) fn run() -> Result<()> {
    let bin = packages::install()?;
    show(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    show(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    // The stories run the program itself.
    show(cargo().args(["build", "--locked", "--package", "cli"]))?;
    show(with_path(cargo().args(["test", "--workspace", "--locked"]), &bin)?)
}

fn with_path<'a>(command: &'a mut Command, bin: &std::path::Path) -> Result<&'a mut Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let parts = [bin.to_path_buf()].into_iter().chain(env::split_paths(&path)).chain(["/usr/sbin".into()]);
    Ok(command.env("PATH", env::join_paths(parts)?))
}
