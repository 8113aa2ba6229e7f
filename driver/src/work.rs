//! One controller's loop: take a key, decide, perform, and see again when it changed, failed or asked to be woken.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use reconcile::{Change, Controller, Effect, Failure, Key, Outcome, Timestamp, Watch, World};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::queue::Queue;
use crate::shared::{Shared, Sink};
use crate::{live, perform};

/// Rounds of live questions before a decision is put off.
const ROUNDS: usize = 8;

/// One controller, its queue, and what wakes it.
pub(crate) struct Runner {
    controller: Box<dyn Controller>,
    watches: Vec<Watch>,
    queue: Mutex<Queue>,
    woken: Notify,
}

impl Sink for Runner {
    fn watches(&self) -> &[Watch] {
        &self.watches
    }

    fn observe(&self, change: &Change, world: &World, now: Timestamp) {
        let keys = self.controller.touches(change, world);
        if keys.is_empty() {
            return;
        }
        self.queue(|queue| keys.into_iter().for_each(|key| queue.add(key, now)));
        self.woken.notify_one();
    }
}

impl Runner {
    pub(crate) fn new(controller: Box<dyn Controller>) -> Self {
        let watches = controller.watches();
        Self { controller, watches, queue: Mutex::default(), woken: Notify::new() }
    }

    /// Runs until told to stop; what is under way then is finished.
    pub(crate) async fn run(self: Arc<Self>, shared: Arc<Shared>, shutdown: CancellationToken) {
        tokio::select! { () = shared.synced(&self.watches) => {}, () = shutdown.cancelled() => return }
        tracing::debug!(controller = self.controller.name(), "started");
        let mut under_way = FuturesUnordered::new();
        while !shutdown.is_cancelled() {
            while under_way.len() < self.controller.workers()
                && let Some(key) = self.queue(|q| q.take(Timestamp::now()))
            {
                under_way.push(self.one(&shared, key));
            }
            let timer = self.queue(|q| q.wake_at());
            tokio::select! {
                Some(()) = under_way.next() => {}
                () = self.woken.notified() => {}
                () = until(timer), if under_way.len() < self.controller.workers() => {}
                () = shutdown.cancelled() => {}
            }
        }
        while under_way.next().await.is_some() {}
    }

    async fn one(&self, shared: &Shared, key: Key) {
        let name = self.controller.name();
        let result = match self.decide(shared, &key).await {
            Ok(outcome) => {
                perform::all(shared, self.controller.component(), outcome.effects).await.map(|()| outcome.wake_at)
            }
            Err(failure) => Err(failure),
        };
        let now = Timestamp::now();
        match result {
            Ok(wake_at) => {
                if shared.world().failure(name, &key).is_some() {
                    shared.world_mut().failed(name, &key, None);
                }
                self.queue(|q| q.done(key, wake_at));
            }
            Err(failure) => {
                tracing::debug!(controller = name, %key, code = failure.code, message = failure.message, "will retry");
                shared.world_mut().failed(name, &key, Some(failure));
                self.queue(|q| q.failed(key, now));
            }
        }
    }

    /// Decides, with the live answers that the decision asks for.
    async fn decide(&self, shared: &Shared, key: &Key) -> Result<Outcome<Effect>, Failure> {
        let name = self.controller.name();
        let mut decided = None;
        for _ in 0..ROUNDS {
            let mut outcome = self.controller.decide(&shared.world(), key, Timestamp::now());
            let questions = std::mem::take(&mut outcome.read_live);
            if questions.is_empty() {
                decided = Some(outcome);
                break;
            }
            live::answer(shared, name, key, questions).await;
        }
        shared.world_mut().unanswer(name, key);
        let Some(outcome) = decided else {
            let message = "the decision kept asking for more".into();
            return Err(Failure { code: 0, reason: "NoDecision".into(), message });
        };
        for reason in &outcome.reasons {
            tracing::debug!(controller = name, %key, reason = reason.reason, message = reason.message);
        }
        Ok(outcome)
    }

    fn queue<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits until a time; forever where there is none.
pub(crate) async fn until(at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let wait = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
            tokio::time::sleep(wait).await;
        }
        None => std::future::pending().await,
    }
}
