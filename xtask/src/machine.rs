//! `cargo xtask conformance machine`: the runtime's own tests on machines that this one is not.

use std::process::Command;

use anyhow::{Context, Result};

use crate::packages;
use crate::run::{Built, built, cargo, show, with_path};

/// Programs that the tests call, beside busybox's.
const TOOLS: &[&str] = &["/usr/sbin/ip", "/usr/bin/ps", "/usr/bin/mount", "/usr/bin/umount"];

/// Builds the tests and runs those in whose names `only` is on a machine, or on all. An error when one fails.
pub(crate) fn run(machine: &str, only: &str) -> Result<()> {
    packages::install_for_machines()?;
    let tests = built(cargo().args(["test", "--no-run", "--locked", "--package", "runtime-core"]))?;
    let driver = built(cargo().args(["build", "--locked", "--package", "e2e", "--example", "runtime_tests"]))?;
    let mut command = Command::new(&driver.first().context("cargo tells of no program")?.program);
    command.args([machine, only]).args(tests.iter().map(place)).args(TOOLS.iter().map(|tool| format!("{tool}={tool}")));
    show(with_path(&mut command, &[])?)
}

/// Tests find the program that they run where cargo puts it: beside their own folder.
fn place(built: &Built) -> String {
    let folder = if built.tests { "deps" } else { "examples" };
    format!("{}=/tests/{folder}/{}", built.program.display(), built.name)
}
