//! Arithmetic on times, and every wait the node keeps, in one place.

use api::Timestamp;
use jiff::SignedDuration;

/// First wait of a crash loop and of an image that cannot be pulled, in seconds.
pub const BACKOFF_FIRST_S: i64 = 10;
/// The longest such wait.
pub const BACKOFF_MAX_S: i64 = 300;
/// A container that ran this long starts over with the first wait.
pub const BACKOFF_RESET_S: i64 = 2 * BACKOFF_MAX_S;
/// What is left for the stop signal when a preStop hook has used up the grace.
pub const MIN_STOP_S: i64 = 2;
/// A kill that has not ended the process is sent again.
pub const KILL_AGAIN_S: i64 = 5;
/// First and longest wait after a failed step of the set-up, in milliseconds.
const RETRY_FIRST_MS: i64 = 500;
const RETRY_MAX_MS: i64 = 10_000;

/// `at` plus seconds; saturates.
pub fn after_s(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// `at` plus milliseconds; saturates.
pub fn after_ms(at: Timestamp, milliseconds: i64) -> Timestamp {
    at.saturating_add(SignedDuration::from_millis(milliseconds)).unwrap_or(Timestamp::MAX)
}

/// Whole seconds from `start` to `end`.
pub fn seconds(start: Timestamp, end: Timestamp) -> i64 {
    end.duration_since(start).as_secs()
}

/// When a step of the set-up that failed `count` times in a row is tried again.
pub fn retry_at(failed: Timestamp, count: u32) -> Timestamp {
    let wait = RETRY_FIRST_MS.saturating_mul(1 << count.saturating_sub(1).min(10));
    after_ms(failed, wait.min(RETRY_MAX_MS))
}
