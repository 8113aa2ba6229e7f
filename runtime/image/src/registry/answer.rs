//! What registries answer that is not what was asked for, in one sentence.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::PATIENCE;
use crate::{Error, Result};

/// As much of an answer as is read for its words.
const MAX_WORDS_BYTES: u64 = 64 << 10;
const NOT_FOUND: [&str; 3] = ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN"];
const REFUSED: [&str; 2] = ["UNAUTHORIZED", "DENIED"];

/// OCI distribution-spec, Error Codes.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<Fault>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fault {
    code: String,
    message: String,
}

/// The error that an answer without success stands for.
pub(super) async fn failure(response: Response, what: &str) -> Error {
    let (status, html) = (response.status(), is_html(&response));
    let words = bounded(response, MAX_WORDS_BYTES, what).await.unwrap_or_default();
    let faults = serde_json::from_slice::<Errors>(&words).map(|answer| answer.errors).unwrap_or_default();
    let says = |codes: &[&str]| faults.iter().any(|fault| codes.contains(&fault.code.as_str()));
    if says(&NOT_FOUND) {
        return Error::NotFound(what.to_owned());
    }
    if says(&REFUSED) || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Error::Unauthorized(what.to_owned());
    }
    let detail = match faults.first() {
        Some(fault) => format!(": {}: {}", shown(&fault.code), shown(&fault.message)),
        None if html => " and an HTML page".to_owned(),
        None => String::new(),
    };
    match status {
        StatusCode::NOT_FOUND => Error::NotFound(what.to_owned()),
        status => Error::Transport(format!("{what}: the registry answers {status}{detail}")),
    }
}

/// Whether a page for people came: from a proxy, a captive portal, or what is no registry.
pub(super) fn is_html(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/html")
}

/// The whole body, which may not be longer than `max_bytes`.
pub(super) async fn bounded(response: Response, max_bytes: u64, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut stream = chunks(response, what.to_owned());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if bytes.len() as u64 + chunk.len() as u64 > max_bytes {
            return Err(Error::Malformed(format!("{what}: the registry answers with more than {max_bytes} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The body as it comes; it ends with an error where nothing comes for too long.
pub(super) fn chunks(response: Response, what: String) -> BoxStream<'static, Result<Bytes>> {
    let stream = response.bytes_stream().boxed();
    let next = |(mut stream, what): (BoxStream<'static, reqwest::Result<Bytes>>, String)| async move {
        let item = match tokio::time::timeout(PATIENCE, stream.next()).await {
            Ok(chunk) => chunk?.map_err(|e| Error::Transport(format!("{what}: {}", chain(&e)))),
            Err(_) => Err(Error::Transport(format!("{what}: nothing came for {PATIENCE:?}"))),
        };
        Some((item, (stream, what)))
    };
    futures::stream::unfold((stream, what), next).boxed()
}

/// One line of what a stranger wrote.
fn shown(text: &str) -> String {
    text.chars().take(200).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// An error with its causes: the interesting one is the last.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
