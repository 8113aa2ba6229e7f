//! Runs seeds of the simulation of a group of members: `sim --seeds N [--from S] [--trace FILE]`. Says which seed failed,
//! how, and how to see it again; FILE gets what happened in the last seed.

use std::process::ExitCode;
use std::time::Instant;

use store::model::{self, Tally};

/// How often progress is said.
const EVERY: u64 = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|i| arguments.get(i + 1));
    let number = |flag: &str, otherwise: u64| value(flag).map_or(Ok(otherwise), |text| text.parse::<u64>());
    let (Ok(seeds), Ok(from)) = (number("--seeds", 100), number("--from", 0)) else {
        eprintln!("usage: sim --seeds N [--from S] [--trace FILE]");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    let mut all = Tally::default();
    for seed in from..from.saturating_add(seeds) {
        let run = model::run(seed);
        all.add(&run.tally);
        if let Some(Err(why)) = value("--trace").map(|file| std::fs::write(file, run.trace.join("\n"))) {
            eprintln!("the trace could not be written: {why}");
            return ExitCode::from(2);
        }
        if let Err(wrong) = run.result {
            println!("{wrong}\n\nseed {seed} failed; again: cargo xtask sim store --seeds 1 --from {seed}");
            return ExitCode::FAILURE;
        }
        if (seed - from + 1) % EVERY == 0 {
            println!("{} seeds, {:.0} s", seed - from + 1, begun.elapsed().as_secs_f64());
        }
    }
    println!("{seeds} seeds from {from} passed in {:.1} s: {all:?}", begun.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
