//! `cargo xtask conformance machine`: the runtime's own tests on machines that this one is not. And suites, there.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::packages;
use crate::run::{Built, built, cargo, show, with_path};

/// Programs that the tests call, beside busybox's, and their places. (busybox's shell takes its own before all others.)
const TOOLS: &[&str] = &[
    "/usr/bin/bash=/usr/bin/bash",
    "/usr/bin/checkpolicy=/usr/bin/checkpolicy",
    "/usr/bin/dash=/usr/bin/sh",
    "/usr/bin/mount=/usr/bin/mount",
    "/usr/bin/ps=/usr/bin/ps",
    "/usr/bin/setpriv=/usr/bin/setpriv",
    "/usr/bin/umount=/usr/bin/umount",
    "/usr/bin/unshare=/usr/bin/unshare",
    "/usr/sbin/apparmor_parser=/usr/sbin/apparmor_parser",
    "/usr/sbin/ip=/usr/sbin/ip",
];

/// Builds the tests and runs those in whose names `only` is on a machine, or on all. An error when one fails.
pub(crate) fn run(machine: &str, only: &str) -> Result<()> {
    packages::install_for_machines()?;
    let tests = built(cargo().args(["test", "--no-run", "--locked", "--package", "runtime-core"]))?;
    let mut command = driver("runtime_tests")?;
    command.args([machine, only]).args(tests.iter().map(place)).args(TOOLS);
    show(with_path(&mut command, &[])?)
}

/// Runs a command in a machine that has this one's files, from a folder of which it has a copy of its own. An error when
/// the command fails.
pub(crate) fn command(folder: &Path, line: &Command) -> Result<()> {
    packages::install_for_machines()?;
    show(with_path(driver("guest")?.arg(folder).arg(line.get_program()).args(line.get_args()), &[])?)
}

/// A program of e2e that switches machines on.
fn driver(name: &str) -> Result<Command> {
    let driver = built(cargo().args(["build", "--locked", "--package", "e2e", "--example", name]))?;
    Ok(Command::new(&driver.first().context("cargo tells of no program")?.program))
}

/// Tests find the program that they run where cargo puts it: beside their own folder.
fn place(built: &Built) -> String {
    let folder = if built.tests { "deps" } else { "examples" };
    format!("{}=/tests/{folder}/{}", built.program.display(), built.name)
}
