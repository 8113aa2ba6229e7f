//! watch -> world -> decide -> perform: the only loop that joins deciders to an API server.
//!
//! The driver knows no kind. It shares one list and watch per resource between all its deciders, keeps the World,
//! decides the keys that changes touch, performs the effects, and decides again when they fail or when asked to.

mod backoff;
mod discover;
pub mod elect;
mod events;
mod live;
mod perform;
mod plan;
mod queue;
mod request;
mod shared;
pub mod sign;
mod source;
mod work;

use std::sync::Arc;

use futures::future::join_all;
use reconcile::{Controller, Planner};
use tokio_util::sync::CancellationToken;

pub use elect::Lease;
pub use sign::{CaSigner, Signer};

use shared::Shared;

/// What a driver runs.
#[derive(Default)]
pub struct Parts {
    /// Deciders over the shared World.
    pub controllers: Vec<Box<dyn Controller>>,
    /// Deciders with a world of their own.
    pub planners: Vec<Box<dyn Planner>>,
}

/// How it runs them.
#[derive(Clone, Default)]
pub struct Config {
    /// Signs certificates; without one, `Effect::Sign` fails.
    pub signer: Option<Arc<dyn Signer>>,
    /// The Lease to hold while running; `None` runs at once and alone.
    pub lease: Option<Lease>,
}

/// Why a driver ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the lease {0} is lost to another holder")]
    LeaseLost(String),
}

/// Runs until `shutdown` is cancelled or the lease is lost. Decisions under way are finished first, and the lease is
/// given back.
pub async fn run(client: kube::Client, parts: Parts, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let Some(lease) = config.lease.clone() else {
        lead(client, parts, config, shutdown).await;
        return Ok(());
    };
    let mut held = match elect::acquire(&client, &lease, &shutdown).await {
        Some(held) => held,
        None => return Ok(()),
    };
    let leading = shutdown.child_token();
    let work = lead(client.clone(), parts, config, leading.clone());
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => {}
        () = held.lost(&client, &leading) => {
            leading.cancel();
            work.await;
            return Err(Error::LeaseLost(lease.name));
        }
    }
    held.release(&client).await;
    Ok(())
}

async fn lead(client: kube::Client, parts: Parts, config: Config, shutdown: CancellationToken) {
    let (recorder, events) = events::channel();
    let controllers = parts.controllers.into_iter().map(work::Runner::new).map(Arc::new);
    let controllers: Vec<Arc<work::Runner>> = controllers.collect();
    let planners: Vec<Arc<plan::Runner>> = parts.planners.into_iter().map(plan::Runner::new).map(Arc::new).collect();
    let mut sinks: Vec<Arc<dyn shared::Sink>> = Vec::new();
    sinks.extend(controllers.iter().map(|r| r.clone() as Arc<dyn shared::Sink>));
    sinks.extend(planners.iter().map(|r| r.clone() as Arc<dyn shared::Sink>));
    let shared = Arc::new(Shared::new(client, config, sinks, recorder));

    let recording = CancellationToken::new();
    let recorded = tokio::spawn(events::record(shared.client.clone(), events, recording.clone()));
    let watching = tokio::spawn(source::watch_all(shared.clone(), shutdown.clone()));
    let work = join_all(controllers.iter().map(|r| tokio::spawn(r.clone().run(shared.clone(), shutdown.clone()))));
    let plan = join_all(planners.iter().map(|r| tokio::spawn(r.clone().run(shared.clone(), shutdown.clone()))));
    let ended = futures::join!(work, plan);
    report(ended.0.into_iter().chain(ended.1));
    recording.cancel();
    report([watching.await, recorded.await]);
}

fn report(ended: impl IntoIterator<Item = Result<(), tokio::task::JoinError>>) {
    for error in ended.into_iter().filter_map(Result::err) {
        tracing::error!(%error, "a part of the driver ended unexpectedly");
    }
}
