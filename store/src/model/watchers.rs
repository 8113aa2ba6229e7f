//! Those who watch: one at every member, who tells the history what it sees, and clients who go from member to member.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};

use super::history::History;
use crate::served::Served;
use crate::state::State;
use crate::{Batch, Error, Range, Revision, Watch};

/// Sees everything that a member applies, also what it applies again after a restart.
pub(super) struct Observer {
    watch: Watch,
    next: Revision,
}

fn begin(served: &Served, prefix: &Bytes, from: Revision) -> Result<Watch, String> {
    served.watch(prefix.clone(), from).map_err(|error| format!("a watch from {from} on does not begin: {error}"))
}

/// The next thing that a watch has to say right now.
fn heard(watch: &mut Watch) -> Option<Result<Batch, Error>> {
    watch.next().now_or_never().flatten()
}

impl Observer {
    /// Begins at the oldest change that the member has; what it serves must be what happened.
    pub(super) fn new(served: &Served, history: &mut History, now: Duration) -> Result<Self, String> {
        // Nothing happened as revision 1.
        let next = served.read(State::compacted).max(1) + 1;
        let mut observer = Self { watch: begin(served, &Bytes::new(), next)?, next };
        observer.look(served, history, now)?;
        let page = served.range(&Range::prefix("/")).map_err(|e| format!("a member cannot be read: {e}"))?;
        history.shows(b"/", &page)?;
        Ok(observer)
    }

    /// Tells the history what is new.
    pub(super) fn look(&mut self, served: &Served, history: &mut History, now: Duration) -> Result<(), String> {
        while let Some(batch) = heard(&mut self.watch) {
            match batch {
                Ok(batch) => self.learn(&batch, history, now)?,
                Err(Error::Compacted(oldest)) if oldest >= self.next && oldest <= history.last() => {
                    *self = Self::new(served, history, now)?;
                }
                Err(error) => return Err(format!("the watch of a member ended at {}: {error}", self.next)),
            }
        }
        Ok(())
    }

    fn learn(&mut self, batch: &Batch, history: &mut History, now: Duration) -> Result<(), String> {
        let whole = |a: &crate::Event, b: &crate::Event| a.revision() == b.revision();
        for events in batch.events.chunk_by(whole) {
            let revision = events.first().map_or(0, crate::Event::revision);
            if revision != self.next {
                return Err(format!("a member told {revision} when {} was next", self.next));
            }
            history.learn(revision, events, now)?;
            self.next += 1;
        }
        Ok(())
    }
}

/// A client that watches a prefix wherever it can, and goes on where it was.
pub(super) struct Watcher {
    prefix: Bytes,
    next: Revision,
    /// With whom, while it watches.
    at: Option<(u64, Watch)>,
    /// It does not watch before that.
    pub(super) away_until: Duration,
}

/// What became of a watcher's look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// All that the member had.
    Everything,
    /// The member had forgotten what comes next: the watcher has read everything anew.
    Relisted,
}

impl Watcher {
    pub(super) fn new(prefix: &'static str) -> Self {
        Self { prefix: prefix.into(), next: 2, at: None, away_until: Duration::ZERO }
    }

    /// The member it watches.
    pub(super) fn member(&self) -> Option<u64> {
        self.at.as_ref().map(|(id, _)| *id)
    }

    /// Lets go of its member.
    pub(super) fn leave(&mut self) {
        self.at = None;
    }

    /// Whether everything that happened was seen.
    pub(super) fn is_done(&self, history: &History) -> bool {
        history.events(self.next..=history.last(), &self.prefix).next().is_none()
    }

    /// Goes on with a member that may be behind what was seen already.
    pub(super) fn resume(&mut self, id: u64, served: &Served, history: &History) -> Result<Seen, String> {
        match served.watch(self.prefix.clone(), self.next) {
            Ok(watch) => {
                self.at = Some((id, watch));
                Ok(Seen::Everything)
            }
            Err(Error::Compacted(oldest)) => self.relist(served, history, oldest),
            Err(error) => Err(format!("a watch from {} on was refused: {error}", self.next)),
        }
    }

    /// Takes in what its member has: every event once, in order, whole revisions.
    pub(super) fn look(&mut self, served: &Served, history: &History) -> Result<Seen, String> {
        while let Some((_, watch)) = &mut self.at
            && let Some(heard) = heard(watch)
        {
            match heard {
                Ok(batch) => self.check(&batch, history)?,
                Err(Error::Compacted(oldest)) => return self.relist(served, history, oldest),
                Err(error) => return Err(format!("a watch ended at {}: {error}", self.next)),
            }
        }
        Ok(Seen::Everything)
    }

    fn check(&mut self, batch: &Batch, history: &History) -> Result<(), String> {
        let (from, upto) = (self.next, batch.revision);
        // Progress may come again.
        if upto + 1 < from || (upto < from && !batch.events.is_empty()) || upto > history.last() {
            return Err(format!("a watch that had seen all before {from} was told {batch:?}"));
        }
        if !history.events(from..=upto, &self.prefix).eq(&batch.events) {
            let expected: Vec<_> = history.events(from..=upto, &self.prefix).collect();
            return Err(format!("a watch from {from} on was told {batch:?}, but what happened is {expected:?}"));
        }
        self.next = upto + 1;
        Ok(())
    }

    /// Only what is gone may be refused; a list then takes the place of what was missed.
    fn relist(&mut self, served: &Served, history: &History, oldest: Revision) -> Result<Seen, String> {
        self.at = None;
        if oldest < self.next {
            return Err(format!("a watch from {} on was refused though {oldest} is there", self.next));
        }
        let page = served.range(&Range::prefix(self.prefix.clone())).map_err(|e| format!("a list failed: {e}"))?;
        if page.revision < oldest {
            return Err(format!("a list of {} though all before {oldest} is forgotten", page.revision));
        }
        history.shows(&self.prefix, &page)?;
        self.next = page.revision + 1;
        Ok(Seen::Relisted)
    }
}
