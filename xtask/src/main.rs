//! The project's own tasks: `cargo xtask --help`.

mod bench;
mod e2e;
mod packages;
mod run;
mod sim;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the Trimtab workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what the tests need and passes them all: formatting, lints, tidy, unit, simulation, real processes.
    Test,
    /// Checks the rules of ARCHITECTURE.md: crate edges, pure crates, module heads, file names.
    Tidy,
    Bench(bench::Arguments),
    Sim(sim::Sim),
    /// Proofs of the whole that take longer than CI has time for.
    #[command(subcommand)]
    E2e(e2e::E2e),
    #[command(hide = true)]
    Repeat(bench::Repeat),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Test => test::run(),
        Task::Tidy => tidy::run(),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Sim(arguments) => sim::run(&arguments),
        Task::E2e(proof) => e2e::run(&proof),
        Task::Repeat(arguments) => bench::repeat(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
