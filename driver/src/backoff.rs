//! Waiting longer after each failure, with jitter so that many do not come back at once.

use std::time::Duration;

use rand::RngExt;

/// The waits of something that is tried again and again.
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Waits `first`, then twice as long each time, never longer than `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, first, most }
    }

    /// The next wait: between half and all of the current step.
    pub(crate) fn step(&mut self) -> Duration {
        let wait = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.most);
        wait
    }

    /// It worked: begin again with the first wait.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}
