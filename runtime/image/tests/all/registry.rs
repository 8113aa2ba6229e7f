//! A small registry (OCI distribution-spec) on loopback that can be told to lie.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::sample::INDEX;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What is answered: a body of `body`, of which only `cut` bytes are sent before the connection breaks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) cut: Option<usize>,
}

/// What the registry holds: by repository and digest or tag.
#[derive(Default)]
pub(crate) struct Content {
    pub(crate) blobs: BTreeMap<(String, String), Bytes>,
    pub(crate) manifests: BTreeMap<(String, String), (String, Bytes)>,
}

type Lie = dyn Fn(&Seen, Answer) -> Answer + Send + Sync;

/// A registry that runs until it is dropped.
pub(crate) struct Registry {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    pub(crate) content: Arc<Mutex<Content>>,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#))
    }
}

impl Registry {
    pub(crate) fn honest() -> Self {
        Self::lying(|_, answer| answer)
    }

    /// One that keeps no list of what refers to what.
    pub(crate) fn without_referrers() -> Self {
        Self::lying(|seen, mut answer| {
            answer.headers.retain(|(name, _)| name != "oci-subject");
            if seen.path.contains("/referrers/") { Answer::error(404, "UNSUPPORTED") } else { answer }
        })
    }

    /// One whose answers go through `lie`.
    pub(crate) fn lying(lie: impl Fn(&Seen, Answer) -> Answer + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (content, seen) = (Arc::<Mutex<Content>>::default(), Arc::<Mutex<Vec<Seen>>>::default());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let state = (content.clone(), seen.clone(), Arc::new(lie) as Arc<Lie>);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, state) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, content, seen, _stop: stop }
    }

    pub(crate) fn asked(&self, method: &str, part: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.method == method && seen.path.contains(part)).cloned().collect()
    }
}

type State = (Arc<Mutex<Content>>, Arc<Mutex<Vec<Seen>>>, Arc<Lie>);

async fn serve(listener: TcpListener, state: State) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = state.clone();
        let service = service_fn(move |request| answer(request, state.clone()));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

type Out = StreamBody<futures::stream::BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

async fn answer(request: Request<Incoming>, (content, log, lie): State) -> Result<Response<Out>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let path = parts.uri.path().to_owned();
    let seen = Seen { method: parts.method.to_string(), path, query, headers: parts.headers, body };
    let honest = honest(&mut content.lock().unwrap(), &seen);
    log.lock().unwrap().push(seen.clone());
    let answer = lie(&seen, honest);
    let mut response = Response::builder().status(answer.status);
    let said = |name: &str| answer.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    if !said("content-length") && !said("transfer-encoding") {
        response = response.header("content-length", answer.body.len());
    }
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let sent = answer.cut.map_or(answer.body.clone(), |cut| answer.body.slice(..cut.min(answer.body.len())));
    let chunks: Vec<_> = sent.chunks(16 << 10).map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
    let body = if seen.method == "HEAD" { Vec::new() } else { chunks };
    let broken = answer.cut.map(|_| async {
        // What came before is sent while we are not ready.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut"))
    });
    let stream = futures::stream::iter(body).chain(futures::stream::iter(broken).then(|broken| broken));
    Ok(response.body(StreamBody::new(stream.boxed())).unwrap())
}

fn honest(content: &mut Content, seen: &Seen) -> Answer {
    let Some(rest) = seen.path.strip_prefix("/v2/") else { return Answer::error(404, "NAME_UNKNOWN") };
    if let Some((repository, _)) = rest.split_once("/blobs/uploads/") {
        return upload(content, seen, repository);
    }
    if let Some((repository, digest)) = rest.split_once("/blobs/") {
        let found = content.blobs.get(&(repository.to_owned(), digest.to_owned()));
        return found.map_or_else(|| Answer::error(404, "BLOB_UNKNOWN"), |blob| ranged(seen, blob));
    }
    if let Some((repository, digest)) = rest.split_once("/referrers/") {
        return referrers(content, seen, repository, digest);
    }
    let Some((repository, reference)) = rest.split_once("/manifests/") else {
        return Answer::new(200, "{}");
    };
    if seen.method == "PUT" {
        let kind = seen.header("content-type").unwrap().to_owned();
        let digest = crate::support::digest(&seen.body);
        for name in [reference, &digest] {
            content.manifests.insert((repository.to_owned(), name.to_owned()), (kind.clone(), seen.body.clone()));
        }
        let answer = Answer::new(201, "").with("docker-content-digest", &digest);
        let json = serde_json::from_slice::<Value>(&seen.body).unwrap_or_default();
        let subject = json["subject"]["digest"].as_str();
        return subject.map_or_else(|| answer.clone(), |subject| answer.clone().with("oci-subject", subject));
    }
    match content.manifests.get(&(repository.to_owned(), reference.to_owned())) {
        None => Answer::error(404, "MANIFEST_UNKNOWN"),
        Some((kind, bytes)) => {
            let digest = crate::support::digest(bytes);
            Answer::new(200, bytes.clone()).with("content-type", kind).with("docker-content-digest", &digest)
        }
    }
}

/// What an item of a query is.
fn query(seen: &Seen, key: &str) -> Option<String> {
    let pairs = seen.query.split('&').filter_map(|pair| pair.split_once('='));
    let plain = |value: &str| value.replace("%3A", ":").replace("%2F", "/").replace("%2B", "+");
    pairs.filter(|(name, _)| *name == key).map(|(_, value)| plain(value)).next()
}

fn referrers(content: &Content, seen: &Seen, repository: &str, digest: &str) -> Answer {
    let mut all = Vec::new();
    for ((of, name), (kind, bytes)) in &content.manifests {
        let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
        if of == repository && name.starts_with("sha256:") && json["subject"]["digest"] == digest {
            let said = [&json["artifactType"], &json["config"]["mediaType"]].into_iter().find(|kind| kind.is_string());
            let mut one = json!({"mediaType": kind, "digest": name, "size": bytes.len()});
            one["artifactType"] = said.cloned().unwrap_or_default();
            one["annotations"] = json["annotations"].clone();
            all.push(one);
        }
    }
    let answer = |all: &[Value]| {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": all});
        Answer::new(200, index.to_string()).with("content-type", INDEX)
    };
    match query(seen, "artifactType") {
        None => answer(&all),
        Some(kind) => {
            all.retain(|one| one["artifactType"] == kind);
            answer(&all).with("oci-filters-applied", "artifactType")
        }
    }
}

fn upload(content: &mut Content, seen: &Seen, repository: &str) -> Answer {
    if seen.method == "POST" {
        let mounted = query(seen, "mount")
            .zip(query(seen, "from"))
            .and_then(|(digest, from)| content.blobs.get(&(from, digest.clone())).cloned().map(|blob| (digest, blob)));
        return match mounted {
            Some((digest, blob)) => {
                content.blobs.insert((repository.to_owned(), digest), blob);
                Answer::new(201, "")
            }
            None => Answer::new(202, "").with("location", &format!("/v2/{repository}/blobs/uploads/1?state=x")),
        };
    }
    let digest = query(seen, "digest").unwrap();
    if crate::support::digest(&seen.body) != digest {
        return Answer::error(400, "DIGEST_INVALID");
    }
    content.blobs.insert((repository.to_owned(), digest), seen.body.clone());
    Answer::new(201, "")
}

fn ranged(seen: &Seen, blob: &Bytes) -> Answer {
    let from: Option<usize> =
        seen.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match from {
        None => Answer::new(200, blob.clone()),
        Some(from) if from < blob.len() => {
            let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
            Answer::new(206, blob.slice(from..)).with("content-range", &range)
        }
        Some(_) => Answer::new(416, ""),
    }
}
