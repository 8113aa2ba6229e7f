//! Turns: writers that would meet each other's conflicts for the same room in a quota, or for the last free addresses, go
//! one after the other.

use std::hash::{DefaultHasher, Hash, Hasher};

use store::{Entry, Txn};
use tokio::sync::{Mutex, MutexGuard};

const QUOTAS: &str = "/registry/resourcequotas/";
/// Keys of what is given out from a range.
const RANGES: [&str; 2] = ["/registry/ipaddresses/", "/nodeports/"];
/// What is contended shares so many turns.
const TURNS: usize = 64;

/// Whose turn it is.
pub(crate) struct Turns(Vec<Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| Mutex::default()).collect())
    }
}

impl Turns {
    /// Waits for a turn at what is contended; it ends with the guard. In order of arrival.
    pub(super) async fn take(&self, contended: &str) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        contended.hash(&mut hasher);
        let turns = u64::try_from(self.0.len()).ok()?;
        let at = usize::try_from(hasher.finish().checked_rem(turns)?).ok()?;
        Some(self.0.get(at)?.lock().await)
    }
}

/// What others took from, so that a commit failed: one quota, or a whole range of addresses or ports.
pub(super) fn contended(txn: &Txn, found: &[Option<Entry>]) -> Option<String> {
    let changed = txn.compare.iter().zip(found).filter(|(compare, entry)| {
        let now = entry.as_ref().map_or(0, |entry| entry.mod_revision);
        compare.mod_revision != now
    });
    changed.map(|(compare, _)| String::from_utf8_lossy(&compare.key)).find_map(|key| {
        let range = RANGES.into_iter().find(|range| key.contains(range)).map(str::to_owned);
        range.or_else(|| key.starts_with(QUOTAS).then(|| key.into_owned()))
    })
}
