//! The node agent: runs the pods that are bound to this node, and reports what became of them.
//!
//! `plan/` decides what is to be done next; this crate does it and notes what came of it. One worker a pod; the
//! heartbeat is a task of its own. Containers are children of their pod's shim: the agent can end and start again while
//! they run.

mod agent;
mod config;
mod dns;
mod down;
mod health;
mod images;
mod logs;
mod memory;
mod node;
mod paths;
mod perform;
mod pipes;
mod pressure;
mod record;
mod routes;
mod server;
mod services;
mod sources;
mod users;
mod watch;
mod worker;

pub use agent::run;
pub use config::{Config, OnStep, Serving};
pub use dns::{DnsConfig, run_dns};
pub use down::purge;
pub use images::in_use as images_in_use;

/// Why the agent could not do its work.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    #[error("the API server")]
    Api(#[from] kube::Error),
    #[error("the network")]
    Network(#[from] network::Error),
    #[error("the runtime")]
    Runtime(#[from] runtime_core::Error),
    #[error("the image store")]
    Image(#[from] runtime_image::Error),
    #[error("a certificate")]
    Certificate(#[from] client::Error),
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

/// The result of the agent's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// An error and all its causes in one line. One that names its cause itself is not repeated.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(&format!(": {said}"));
        }
        source = cause.source();
    }
    text
}

/// Runs blocking work; a panic in it becomes an error.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, String> + Send + 'static,
) -> std::result::Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("no room");
        let error = Error::Io("disk".into(), cause());
        assert_eq!(chain(&error), "disk: no room");
        assert_eq!(
            chain(&Error::Runtime(runtime_core::Error::System("write".into(), cause()))),
            "the runtime: write: no room"
        );
    }
}
