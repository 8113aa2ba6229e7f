//! Port-forward: connections to ports of a pod, also to those that listen on its loopback address only.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as Plain};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stream::{Forwarded, port_forward};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Body, find, text};
use crate::agent::Agent;
use crate::{chain, routes};

/// How long a port may take to answer.
const CONNECT: Duration = Duration::from_secs(10);

/// Answers a port-forward request: the upgrade, then the session on a task of its own.
pub(super) async fn forward(
    agent: &Arc<Agent>,
    namespace: &str,
    pod: &str,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let Some(found) = find(agent, namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod does not exist: {pod}_{namespace}"));
    };
    let upgrade = match port_forward(&mut request) {
        Ok(upgrade) => upgrade,
        Err(refused) => return text(refused.status, refused.message),
    };
    let on_host = found.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let uid = found.metadata.uid.clone().unwrap_or_default();
    let space = (!on_host).then(|| routes::namespaces(&agent.config).join(uid));
    tokio::spawn(async move {
        match upgrade.session.await {
            Ok(mut session) => {
                while let Some(connection) = session.next().await {
                    tokio::spawn(carry(connection, space.clone()));
                }
            }
            Err(error) => tracing::debug!(error = chain(&error), "a port-forward was not opened"),
        }
    });
    upgrade.response.map(|()| Empty::new().boxed())
}

async fn carry(connection: Forwarded, space: Option<PathBuf>) {
    let Forwarded { port, mut data, mut error } = connection;
    match connect(port, space).await {
        Ok(mut stream) => {
            let _ = tokio::io::copy_bidirectional(&mut data, &mut stream).await;
        }
        Err(why) => {
            let message = format!(
                "an error occurred forwarding {port}: failed to connect to localhost:{port} inside the pod: {why}"
            );
            let _ = error.write_all(message.as_bytes()).await;
        }
    }
}

/// A connection made inside the pod's network namespace, on a thread that ends with it.
async fn connect(port: u16, space: Option<PathBuf>) -> io::Result<TcpStream> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("port-forward".into()).spawn(move || {
        let _ = done.send(dial(port, space));
    })?;
    let stream = result.await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn dial(port: u16, space: Option<PathBuf>) -> io::Result<Plain> {
    if let Some(space) = space {
        let space = File::open(space)?;
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Plain::connect_timeout(&v4, CONNECT).or_else(|first| {
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        Plain::connect_timeout(&v6, CONNECT).map_err(|_| first)
    })
}
