//! `/containerLogs`: a container's log, from where the client wants it, followed while the container runs.

use std::convert::Infallible;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Timestamp;
use futures::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use rustix::fs::inotify;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::{Body, find, query, text};
use crate::agent::Agent;
use crate::logs::{Options, parse, shown, tail_offset};
use crate::paths::PodPaths;
use crate::pipes::watched;

/// Pieces that wait for a slow client.
const QUEUE: usize = 16;
/// Bytes read at once.
const CHUNK: usize = 32 << 10;
/// The longest line that is put together; the shim splits at 16 KiB.
const MAX_LINE: usize = 64 << 10;

/// Answers a request for a log.
pub(super) async fn logs(
    agent: &Arc<Agent>,
    namespace: &str,
    name: &str,
    container: &str,
    asked: &str,
) -> Response<Body> {
    let Some(pod) = find(agent, namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found\n"));
    };
    let (options, previous) = match options(asked) {
        Ok(options) => options,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let run = match choose(&pod, container, previous) {
        Ok(run) => run,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let attempt = run.rsplit_once('-').and_then(|(_, attempt)| attempt.parse().ok()).unwrap_or(0);
    let path = PodPaths::of(&agent.config, &pod).log(container, attempt);
    let (out, pieces) = mpsc::channel(QUEUE);
    let reader =
        Reader { agent: agent.clone(), pod: pod.clone(), container: container.into(), run, path, options, out };
    tokio::spawn(reader.run());
    let frames = stream::unfold(pieces, |mut pieces| async move {
        let piece: Bytes = pieces.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(piece)), pieces))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}

fn options(asked: &str) -> Result<(Options, bool), String> {
    let mut options = Options::default();
    let mut previous = false;
    for (key, value) in query(asked) {
        let truth = matches!(value.as_str(), "true" | "1");
        let number = || value.parse::<u64>().map_err(|_| format!("invalid {key}: {value}\n"));
        match key.as_str() {
            "follow" => options.follow = truth,
            "previous" => previous = truth,
            "timestamps" => options.timestamps = truth,
            "tailLines" => options.tail = Some(number()?),
            "limitBytes" => options.limit_bytes = Some(number()?),
            "sinceSeconds" => {
                let seconds = i64::try_from(number()?).unwrap_or(i64::MAX);
                options.since = Some(node_plan::clock::after_s(Timestamp::now(), -seconds));
            }
            "sinceTime" => options.since = Some(value.parse().map_err(|_| format!("invalid sinceTime: {value}\n"))?),
            "stream" => {
                options.stream = match value.as_str() {
                    "Stdout" => Some("stdout"),
                    "Stderr" => Some("stderr"),
                    _ => None,
                }
            }
            _ => {}
        }
    }
    Ok((options, previous))
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|s| s.name == container)
}

/// Which run's log is meant (kubelet's `validateContainerLogStatus`).
fn choose(pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(status) = status(pod, container) else {
        return Err(format!("container \"{container}\" in pod \"{name}\" is not available"));
    };
    let ended = |state: &Option<ContainerState>| {
        state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| t.container_id.clone())
    };
    let state = status.state.clone().unwrap_or_default();
    let id = match (previous, &state) {
        (true, _) => ended(&status.last_state)
            .ok_or_else(|| format!("previous terminated container \"{container}\" in pod \"{name}\" not found"))?,
        (false, ContainerState { running: Some(_), .. }) => status.container_id.clone().unwrap_or_default(),
        (false, ContainerState { terminated: Some(t), .. }) => {
            t.container_id.clone().or_else(|| ended(&status.last_state)).unwrap_or_default()
        }
        (false, _) => ended(&status.last_state).ok_or_else(|| waiting(container, name, &state))?,
    };
    id.rsplit_once('_').map(|(_, run)| run.to_owned()).ok_or_else(|| waiting(container, name, &state))
}

fn waiting(container: &str, pod: &str, state: &ContainerState) -> String {
    let reason = state.waiting.as_ref().and_then(|w| w.reason.as_deref()).unwrap_or("ContainerCreating");
    let why = match reason {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        reason => reason,
    };
    format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}")
}

/// Reads one log for one client.
struct Reader {
    agent: Arc<Agent>,
    pod: Arc<Pod>,
    container: String,
    run: String,
    path: PathBuf,
    options: Options,
    out: mpsc::Sender<Bytes>,
}

impl Reader {
    async fn run(mut self) {
        if let Err(error) = self.read().await {
            tracing::debug!(%error, path = %self.path.display(), "a log was not read to its end");
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let watch = if self.options.follow { Some(watch(&self.path)?) } else { None };
        let mut pods = self.agent.pods.subscribe();
        let mut file = self.open()?;
        let mut rest = Vec::new();
        loop {
            let running = self.running();
            if !self.drain(&mut file, &mut rest).await? {
                return Ok(());
            }
            if let Some(next) = self.turned(&file).await? {
                file = next;
                continue;
            }
            let Some(watch) = watch.as_ref().filter(|_| running) else { return Ok(()) };
            tokio::select! {
                ready = watch.readable() => {
                    let mut ready = ready?;
                    let mut buffer = [0; 4096];
                    let _ = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?));
                }
                changed = pods.changed() => if changed.is_err() { return Ok(()) },
                () = self.out.closed() => return Ok(()),
            }
        }
    }

    /// The file, at the first line that is wanted.
    fn open(&self) -> io::Result<tokio::fs::File> {
        let mut file = std::fs::File::open(&self.path)?;
        if let Some(lines) = self.options.tail {
            let at = tail_offset(&mut file, lines)?;
            file.seek(SeekFrom::Start(at))?;
        }
        Ok(tokio::fs::File::from_std(file))
    }

    /// Sends all that is there; false where the client has enough or is gone.
    async fn drain(&mut self, file: &mut tokio::fs::File, rest: &mut Vec<u8>) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = file.read(&mut chunk).await?;
            if n == 0 {
                return Ok(true);
            }
            rest.extend_from_slice(chunk.get(..n).unwrap_or_default());
            let end = rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            if end == 0 && rest.len() > MAX_LINE {
                rest.clear();
            }
            let whole: Vec<u8> = rest.drain(..end).collect();
            let mut bytes: Vec<u8> =
                whole.split(|b| *b == b'\n').filter_map(parse).flat_map(|line| shown(&line, &self.options)).collect();
            if let Some(limit) = &mut self.options.limit_bytes {
                bytes.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
                *limit -= bytes.len() as u64;
            }
            if !bytes.is_empty() && self.out.send(bytes.into()).await.is_err() {
                return Ok(false);
            }
            if self.options.limit_bytes == Some(0) {
                return Ok(false);
            }
        }
    }

    /// The file that has taken this one's place, after it was turned over.
    async fn turned(&self, file: &tokio::fs::File) -> io::Result<Option<tokio::fs::File>> {
        let now = match tokio::fs::metadata(&self.path).await {
            Ok(meta) => meta,
            Err(_) => return Ok(None),
        };
        if now.ino() == file.metadata().await?.ino() {
            return Ok(None);
        }
        tokio::fs::File::open(&self.path).await.map(Some)
    }

    /// Whether the API still shows this run as running.
    fn running(&self) -> bool {
        let uid = self.pod.metadata.uid.clone().unwrap_or_default();
        let pods = self.agent.pods.borrow();
        let status = pods.get(&uid).and_then(|pod| status(pod, &self.container));
        let id = node_plan::status::container_id(&self.pod, &self.run);
        status.is_some_and(|s| {
            let state = s.state.as_ref();
            s.container_id.as_deref() == Some(&id) && state.is_some_and(|s| s.running.is_some())
        })
    }
}

/// Becomes readable when the log grows or another file takes its place.
fn watch(path: &Path) -> io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    inotify::add_watch(
        &fd,
        folder,
        inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO,
    )?;
    watched(fd)
}
