//! Turns: writers that would meet each other's conflicts for the same room in a quota go one after the other.

use std::hash::{DefaultHasher, Hash, Hasher};

use store::{Entry, Txn};
use tokio::sync::{Mutex, MutexGuard};

const QUOTAS: &[u8] = b"/registry/resourcequotas/";
/// Namespaces share so many turns.
const TURNS: usize = 64;

/// Whose turn it is.
pub(crate) struct Turns(Vec<Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| Mutex::default()).collect())
    }
}

impl Turns {
    /// Waits for the namespace's turn; it ends with the guard. In order of arrival.
    pub(super) async fn take(&self, namespace: &str) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let turns = u64::try_from(self.0.len()).ok()?;
        let at = usize::try_from(hasher.finish().checked_rem(turns)?).ok()?;
        Some(self.0.get(at)?.lock().await)
    }
}

/// Whether a commit failed because others took from the same quota.
pub(super) fn contended(txn: &Txn, found: &[Option<Entry>]) -> bool {
    let changed = |(compare, entry): (&store::Compare, &Option<Entry>)| {
        let now = entry.as_ref().map_or(0, |entry| entry.mod_revision);
        compare.key.starts_with(QUOTAS) && compare.mod_revision != now
    };
    txn.compare.iter().zip(found).any(changed)
}
