//! One suite for every home of the store, and what only one of them has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
mod crash;
mod server;

/// Runs every case of the suite on a home; `$start` makes a fresh store and something that keeps it alive.
macro_rules! conformance {
    ($home:ident, $start:expr) => {
        conformance!($home, $start, order, reads_at_revisions, pages, transactions, several_operations,
            refuses_malformed, watch_from_a_revision, whole_revisions, watch_prefix, progress, compaction,
            future_revisions, resume, leases, revoked_lease, concurrent_commits);
    };
    ($home:ident, $start:expr, $($case:ident),*) => {
        mod $home {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    if let Some((store, _alive)) = $start.await {
                        $crate::conformance::$case(&store).await;
                    }
                }
            )*
        }
    };
}

conformance!(memory, async { Some((store::memory::Memory::new(), ())) });

conformance!(embedded, async {
    let dir = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(dir.path(), store::embedded::Settings::default()).unwrap();
    Some((store, dir))
});

conformance!(etcd, crate::server::start());

conformance!(transformed, async { Some((crate::server::flipped(), ())) });
