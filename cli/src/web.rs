//! `trimtab web`: the small web server of the quick start. It serves a directory of files, tells who answered, and on
//! TERM goes on answering until nobody comes any more, so that a rolling update fails no request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// A client has this long to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Files larger than this are refused, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Serves files over HTTP.
#[derive(Args, Debug)]
pub(crate) struct Web {
    /// Address and port; without an address: all of them.
    #[arg(long, default_value = ":8080", value_parser = listen_address)]
    listen: SocketAddr,
    /// The directory to serve.
    #[arg(long, default_value = "/srv/www")]
    root: PathBuf,
    /// After TERM, stop once no connection has come for this many milliseconds.
    #[arg(long, default_value_t = 1500)]
    quiet_ms: u64,
}

/// `:8080`, `127.0.0.1:8080` or `[::1]:8080`.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT or :PORT"))
}

/// Runs until TERM or INT and the drain that follows.
pub(crate) async fn run(arguments: Web) -> Result<()> {
    let listener =
        TcpListener::bind(arguments.listen).await.with_context(|| format!("listen on {}", arguments.listen))?;
    let (root, connections) = (Arc::new(arguments.root), TaskTracker::new());
    println!("listening on {}", listener.local_addr()?);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    loop {
        tokio::select! {
            accepted = listener.accept() => serve(&connections, accepted, &root),
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
    }
    println!("draining");
    while let Ok(accepted) = timeout(Duration::from_millis(arguments.quiet_ms), listener.accept()).await {
        serve(&connections, accepted, &root);
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

fn serve(connections: &TaskTracker, accepted: std::io::Result<(TcpStream, SocketAddr)>, root: &Arc<PathBuf>) {
    // An error here is the client's (it went away) or passes (no descriptors): the listener itself stays.
    let Ok((stream, _)) = accepted else { return };
    let root = root.clone();
    connections.spawn(async move {
        let answer = service_fn(move |request| {
            let root = root.clone();
            async move { Ok::<_, Infallible>(answer(&root, &request).await) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false);
        let _ = server.serve_connection(TokioIo::new(stream), answer).await;
    });
}

async fn answer(root: &Path, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/hostname" => plain(StatusCode::OK, &hostname()),
        path => file(root, path).await.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "not found\n")),
    }
}

/// The file of a path below the root; `None` for anything that leaves it or is not a file of acceptable size.
async fn file(root: &Path, path: &str) -> Option<Response<Full<Bytes>>> {
    let relative = Path::new(path.trim_start_matches('/'));
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let mut full = root.join(relative);
    if tokio::fs::metadata(&full).await.ok()?.is_dir() {
        full.push("index.html");
    }
    if tokio::fs::metadata(&full).await.ok()?.len() > MAX_FILE {
        return None;
    }
    let bytes = tokio::fs::read(&full).await.ok()?;
    let kind = match full.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    Response::builder().header(header::CONTENT_TYPE, kind).body(Full::new(bytes.into())).ok()
}

fn plain(code: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = code;
    response
}

fn hostname() -> String {
    let name = rustix::system::uname();
    format!("{}\n", name.nodename().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::{file, listen_address};

    #[tokio::test]
    async fn nothing_outside_the_root_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("www");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("index.html"), "x").unwrap();
        std::fs::write(dir.path().join("secret.txt"), "y").unwrap();
        assert!(file(&root, "/").await.is_some());
        for path in ["/../secret.txt", "/..", "//etc/passwd", "/./../secret.txt"] {
            assert!(file(&root, path).await.is_none(), "{path}");
        }
    }

    #[test]
    fn a_port_alone_listens_everywhere() {
        assert_eq!(listen_address(":80"), Ok("0.0.0.0:80".parse().unwrap()));
        assert!(listen_address("80").is_err());
    }
}
