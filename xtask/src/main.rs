//! The project's own tasks: `cargo xtask --help`.

mod attacks;
mod bench;
mod conformance;
mod e2e;
mod engines;
mod machine;
mod mutants;
mod packages;
mod reads;
mod run;
mod sim;
mod soak;
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
    /// Plants faults, one at a time, and shows that a test catches each.
    Mutants {
        /// Only those whose name contains this.
        #[arg(default_value = "")]
        only: String,
    },
    /// Checks the rules of ARCHITECTURE.md: crate edges, pure crates, module heads, file names.
    Tidy,
    /// Runs other people's suites against what is ours.
    #[command(subcommand)]
    Conformance(conformance::Conformance),
    Bench(bench::Arguments),
    Sim(sim::Sim),
    /// Watches and lists at full size, on the embedded store and on etcd: 200 watchers with selectors during 20,000
    /// writes, a list of 100,000 objects in pages while it changes.
    Reads,
    Soak(soak::Soak),
    /// What has broken out of other runtimes, tried on ours 10,000 times, and a hundred times the mutations of hostile input
    /// that the tests read.
    Attacks,
    /// Proofs of the whole that take longer than CI has time for.
    #[command(subcommand)]
    E2e(e2e::E2e),
    #[command(hide = true)]
    Repeat(bench::Repeat),
    #[command(hide = true)]
    Lives(bench::Lives),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Test => test::run(),
        Task::Mutants { only } => mutants::run(&only),
        Task::Tidy => tidy::run(),
        Task::Conformance(what) => conformance::run(&what),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Sim(arguments) => sim::run(&arguments),
        Task::Reads => reads::run(),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Attacks => attacks::run(),
        Task::E2e(proof) => e2e::run(&proof),
        Task::Repeat(arguments) => bench::repeat(&arguments),
        Task::Lives(arguments) => bench::lives(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
