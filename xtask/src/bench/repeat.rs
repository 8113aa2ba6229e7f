//! `cargo xtask repeat COUNT PROGRAM ARGS...`: runs a program again and again and says how long each run took. A process
//! of its own, so that it can be started in namespaces of its own.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;

use super::process::children_cpu_seconds;

/// Runs a program again and again; prints `run NANOSECONDS` for each run and `cpu NANOSECONDS` for all.
#[derive(Args)]
pub(crate) struct Repeat {
    /// How many times.
    count: usize,
    /// The program.
    program: OsString,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// A run that fails ends it all.
pub(crate) fn repeat(arguments: &Repeat) -> Result<()> {
    let before = children_cpu_seconds(std::process::id());
    for _ in 0..arguments.count {
        let start = Instant::now();
        let mut command = Command::new(&arguments.program);
        let status = command.args(&arguments.arguments).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        let taken = start.elapsed();
        ensure!(status.success(), "{}: {status}", arguments.program.display());
        println!("run {}", taken.as_nanos());
    }
    println!("cpu {}", (children_cpu_seconds(std::process::id()) - before) * 1e9);
    Ok(())
}
