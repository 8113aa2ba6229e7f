//! Runs seeds of the simulation: `sim --seeds N [--from S]`. Says which seed failed, how, and how to see it again.

use std::process::ExitCode;

use controller::model::simulate;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|i| arguments.get(i + 1));
    let number = |flag: &str, otherwise: u64| value(flag).map_or(Ok(otherwise), |text| text.parse::<u64>());
    let (Ok(seeds), Ok(from)) = (number("--seeds", 1_000), number("--from", 0)) else {
        eprintln!("usage: sim --seeds N [--from S]");
        return ExitCode::from(2);
    };
    for seed in from..from.saturating_add(seeds) {
        if let Err(wrong) = simulate::run(seed) {
            println!("{wrong}\n\nseed {seed} failed; again: cargo xtask sim --seeds 1 --from {seed}");
            return ExitCode::FAILURE;
        }
    }
    println!("{seeds} seeds from {from} passed");
    ExitCode::SUCCESS
}
