//! Progress on long work: a spinner on a terminal, plain lines in a pipe, on standard error in both.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// What is being done now, and how long the steps took.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
}

impl Progress {
    /// Nothing is shown yet.
    pub(crate) fn new() -> Self {
        let bar = stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.set_style(ProgressStyle::default_spinner().tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, began: Instant::now() }
    }

    /// A step begins.
    pub(crate) fn step(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// A step is done.
    pub(crate) fn done(&self, what: &str) {
        let line = format!("{what} ({:.2} s)", self.began.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(format!("✓ {line}")),
            None => eprintln!("{line}"),
        }
    }

    /// No more steps.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
