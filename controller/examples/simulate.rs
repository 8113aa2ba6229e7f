//! Runs seeds of the simulation on all cores: `simulate FIRST COUNT`. `cargo xtask sim` is the way to call it.
//!
//! Prints what each failed seed says; exits with 1 if one failed.

use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use controller::model::simulate;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let &[first, count] = numbers.as_slice() else {
        eprintln!("usage: simulate FIRST COUNT");
        return ExitCode::from(2);
    };
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < count);
                for at in std::iter::from_fn(take) {
                    failed.fetch_add(one(first.wrapping_add(at)), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{count} seeds from {first}: {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// How many failed of this one seed.
fn one(seed: u64) -> u64 {
    let Err(wrong) = simulate::run(seed) else { return 0 };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{wrong}\nreplay: cargo xtask sim --seeds 1 --from {seed}\n");
    1
}
