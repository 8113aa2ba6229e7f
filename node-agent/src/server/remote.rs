//! Exec and attach: a process's descriptors and a client's streams, joined.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use runtime_core::pod::{ExecConfig, Shim, Streams};
use stream::{Exit, RemoteCommand, Size, Wants, remote_command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Body, find, query, text};
use crate::agent::Agent;
use crate::paths::PodPaths;
use crate::pipes::Pipe;
use crate::{blocking, chain};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Exec,
    Attach,
}

/// Answers an exec or attach request: the upgrade, then the session on a task of its own.
pub(super) async fn command(
    agent: &Arc<Agent>,
    namespace: &str,
    pod: &str,
    container: &str,
    mut request: Request<Incoming>,
    what: What,
) -> Response<Body> {
    let asked = request.uri().query().unwrap_or_default();
    let wants = Wants::from_query(asked);
    let args = query(asked).into_iter().filter(|(k, _)| k == "command").map(|(_, v)| v).collect();
    let Some(found) = find(agent, namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod does not exist: {pod}_{namespace}"));
    };
    let upgrade = match remote_command(&mut request, wants) {
        Ok(upgrade) => upgrade,
        Err(refused) => return text(refused.status, refused.message),
    };
    let run_dir = PodPaths::of(&agent.config, &found).run;
    let container = container.to_owned();
    let begun = blocking(move || begin(&run_dir, &container, args, wants, what)).await;
    let streams = match begun {
        Ok(streams) => streams,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    tokio::spawn(async move {
        match upgrade.session.await {
            Ok(remote) => session(streams, remote).await,
            Err(error) => tracing::debug!(error = chain(&error), "a session was not opened"),
        }
    });
    upgrade.response.map(|()| Empty::new().boxed())
}

fn begin(
    run_dir: &std::path::Path,
    container: &str,
    args: Vec<String>,
    wants: Wants,
    what: What,
) -> Result<Streams, String> {
    let shim = Shim::adopt(run_dir).map_err(|_| format!("container not found (\"{container}\")"))?;
    let run = running(&shim, container)?;
    let begun = match what {
        What::Exec => shim.exec(&ExecConfig { container: run, args, tty: wants.tty, stdin: wants.stdin }),
        What::Attach => shim.attach(&run, wants.stdin),
    };
    begun.map_err(|error| chain(&error))
}

/// The running run of a container.
fn running(shim: &Shim, container: &str) -> Result<String, String> {
    let list = shim.containers().map_err(|error| chain(&error))?;
    let own = |id: &str| {
        id.rsplit_once('-').is_some_and(|(name, attempt)| name == container && attempt.parse::<u32>().is_ok())
    };
    let found = list.into_iter().find(|c| c.exit.is_none() && own(&c.id));
    found.map(|c| c.id).ok_or_else(|| format!("container not found (\"{container}\")"))
}

/// Carries bytes until the process has ended and all its output has gone out, or the client has left.
async fn session(streams: Streams, remote: RemoteCommand) {
    let Streams { stdin, stdout, stderr, terminal, exit } = streams;
    let RemoteCommand { stdin: typed, stdout: shown, stderr: errors, resize: sizes, exit: told, gone } = remote;
    let input = tokio::spawn(copy_in(typed, stdin));
    let sizes = tokio::spawn(resize(sizes, terminal));
    let work = async { tokio::join!(copy_out(stdout, shown), copy_out(stderr, errors), code(exit)) };
    tokio::select! {
        (_, _, code) = work => told.send(if code == 0 { Exit::Done } else { Exit::Code(code) }),
        () = gone.cancelled() => {}
    }
    input.abort();
    sizes.abort();
}

async fn copy_in(from: Option<tokio::io::DuplexStream>, to: Option<OwnedFd>) {
    if let (Some(mut from), Some(Ok(mut to))) = (from, to.map(Pipe::new)) {
        let _ = tokio::io::copy(&mut from, &mut to).await;
    }
}

/// To the end of the output, or until the client no longer takes it.
async fn copy_out(from: Option<OwnedFd>, to: Option<tokio::io::DuplexStream>) {
    let Some(Ok(mut from)) = from.map(Pipe::new) else { return };
    match to {
        Some(mut to) => {
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        }
        None => {
            let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
        }
    }
}

async fn resize(mut sizes: mpsc::Receiver<Size>, terminal: Option<OwnedFd>) {
    let Some(terminal) = terminal else { return };
    while let Some(size) = sizes.recv().await {
        let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = rustix::termios::tcsetwinsize(&terminal, size);
    }
}

/// The exit code; an attached process has none.
async fn code(exit: Option<OwnedFd>) -> i32 {
    let Some(Ok(mut exit)) = exit.map(Pipe::new) else { return 0 };
    let mut bytes = [0; 4];
    match exit.read_exact(&mut bytes).await {
        Ok(_) => i32::from_le_bytes(bytes),
        Err(_) => 137,
    }
}
