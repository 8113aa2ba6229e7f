//! Exec and attach over SPDY: the client opens a stream for each thing it wants, named by its `streamtype`.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::Session;
use crate::Error;
use crate::command::{Lanes, RemoteCommand, Wants, session};

/// How long the client may take to open its streams (kubelet's default).
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// Waits for the streams that were asked for.
pub(crate) async fn open<S>(io: S, wants: Wants) -> Result<RemoteCommand, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (gone, close) = (CancellationToken::new(), CancellationToken::new());
    let mut connection = Session::start(io, gone.clone(), close.clone());
    let guard = close.clone().drop_guard();
    let lanes = tokio::time::timeout(OPEN_WITHIN, collect(&mut connection, wants)).await;
    let lanes = lanes.ok().flatten().ok_or(Error::Streams)?;
    guard.disarm();
    Ok(session(lanes, gone, close))
}

async fn collect(connection: &mut Session, wants: Wants) -> Option<Lanes> {
    let mut lanes = Lanes::default();
    let complete = |lanes: &Lanes| {
        lanes.error.is_some()
            && lanes.stdin.is_some() == wants.stdin
            && lanes.stdout.is_some() == wants.stdout
            && lanes.stderr.is_some() == wants.stderr
            && lanes.resize.is_some() == wants.tty
    };
    while !complete(&lanes) {
        let stream = connection.streams.recv().await?;
        let lane = match stream.header("streamtype")? {
            "error" => &mut lanes.error,
            "stdin" if wants.stdin => &mut lanes.stdin,
            "stdout" if wants.stdout => &mut lanes.stdout,
            "stderr" if wants.stderr => &mut lanes.stderr,
            "resize" if wants.tty => &mut lanes.resize,
            _ => continue,
        };
        *lane = Some(stream.lane);
    }
    Some(lanes)
}
