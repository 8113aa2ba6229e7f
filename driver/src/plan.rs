//! A planner's loop: tell it every change, ask for decisions, perform several at once, say how each went.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::RngExt;
use reconcile::{Change, Effect, Failure, Key, Planner, Timestamp, Watch, World};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::perform;
use crate::shared::{Shared, Sink};
use crate::work::until;

/// One planner and what wakes it.
pub(crate) struct Runner {
    name: &'static str,
    watches: Vec<Watch>,
    parallel: usize,
    planner: Mutex<Box<dyn Planner>>,
    woken: Notify,
}

impl Sink for Runner {
    fn watches(&self) -> &[Watch] {
        &self.watches
    }

    fn observe(&self, change: &Change, _: &World, now: Timestamp) {
        self.planner(|p| p.observe(change, now));
        self.woken.notify_one();
    }
}

impl Runner {
    pub(crate) fn new(planner: Box<dyn Planner>) -> Self {
        let (name, watches, parallel) = (planner.name(), planner.watches(), planner.parallel());
        Self { name, watches, parallel, planner: Mutex::new(planner), woken: Notify::new() }
    }

    /// Runs until told to stop; what is under way then is finished.
    pub(crate) async fn run(self: Arc<Self>, shared: Arc<Shared>, shutdown: CancellationToken) {
        tokio::select! { () = shared.synced(&self.watches) => {}, () = shutdown.cancelled() => return }
        let mut under_way = FuturesUnordered::new();
        while !shutdown.is_cancelled() {
            while under_way.len() < self.parallel
                && let Some((key, effects)) = self.next()
            {
                under_way.push(self.perform(&shared, key, effects));
            }
            let timer = self.planner(|p| p.wake_at());
            tokio::select! {
                Some(()) = under_way.next() => {}
                () = self.woken.notified() => {}
                () = until(timer), if under_way.len() < self.parallel => {}
                () = shutdown.cancelled() => {}
            }
        }
        while under_way.next().await.is_some() {}
    }

    fn next(&self) -> Option<(Key, Vec<Effect>)> {
        let entropy = rand::rng().random();
        let (key, outcome) = self.planner(|p| p.next(Timestamp::now(), entropy))?;
        for reason in &outcome.reasons {
            tracing::debug!(planner = self.name, %key, reason = reason.reason, message = reason.message);
        }
        Some((key, outcome.effects))
    }

    async fn perform(&self, shared: &Shared, key: Key, effects: Vec<Effect>) {
        let result: Result<(), Failure> = perform::all(shared, self.name, effects).await;
        if let Err(failure) = &result {
            tracing::debug!(planner = self.name, %key, code = failure.code, message = failure.message, "failed");
        }
        self.planner(|p| p.performed(&key, result, Timestamp::now()));
    }

    fn planner<T>(&self, work: impl FnOnce(&mut dyn Planner) -> T) -> T {
        work(self.planner.lock().unwrap_or_else(PoisonError::into_inner).as_mut())
    }
}
