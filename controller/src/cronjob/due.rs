//! Which time of a schedule counts now (`pkg/controller/cronjob/utils.go`).

use api::cron::Schedule;
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use reconcile::Timestamp;

/// Clocks of other machines may be early by that.
const PADDING: SignedDuration = SignedDuration::from_millis(100);

/// A schedule, the zone whose clocks it is about, since when its times count, and the time now.
pub(super) struct Times<'s> {
    pub(super) schedule: &'s Schedule,
    pub(super) zone: &'s TimeZone,
    pub(super) begun: Timestamp,
    pub(super) now: Timestamp,
}

/// A schedule that never comes, or comes twice at once.
pub(super) struct Senseless;

/// So many seconds later.
pub(super) fn later(time: Timestamp, seconds: i64) -> Option<Timestamp> {
    time.checked_add(SignedDuration::from_secs(seconds)).ok()
}

impl Times<'_> {
    /// The last time up to now that a job should have begun at. Before a deadline's seconds nothing is looked for.
    pub(super) fn latest(&self, deadline_seconds: Option<i64>) -> Result<Option<Timestamp>, Senseless> {
        let line = deadline_seconds.and_then(|seconds| later(self.now, seconds.checked_neg()?));
        Ok(self.found(line.map_or(self.begun, |line| line.max(self.begun)))?.0)
    }

    /// The last time after `earliest` up to now, and whether times between were missed.
    fn found(&self, earliest: Timestamp) -> Result<(Option<Timestamp>, bool), Senseless> {
        let next = |after| self.schedule.next(after, self.zone).ok_or(Senseless);
        let first = next(earliest)?;
        let second = next(first)?;
        if self.now < first {
            return Ok((None, false));
        }
        if self.now < second {
            return Ok((Some(first), false));
        }
        let between = second.duration_since(first).as_secs();
        if between < 1 {
            return Err(Senseless);
        }
        // Roughly two times before the last: from there it is counted.
        let missed = self.now.duration_since(first).as_secs() / between + 1;
        let mut at = later(first, (missed - 2).saturating_mul(between)).ok_or(Senseless)?;
        let mut latest = None;
        loop {
            at = next(at)?;
            if at > self.now {
                return Ok((latest, true));
            }
            latest = Some(at);
        }
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let from = match self.found(self.begun) {
            Ok((Some(latest), _)) => latest,
            Ok((None, false)) => self.begun,
            Ok((None, true)) | Err(Senseless) => self.now,
        };
        self.schedule.next(from, self.zone)?.checked_add(PADDING).ok()
    }
}
