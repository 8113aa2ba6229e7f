//! From a result to HTTP: JSON, YAML, pretty forms, gzip, Warning headers.

use std::io::Write;

use api::{Document, Status};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response};
use serde_json::Value;

use crate::cache::encode;
use crate::negotiate::Encoding;
use crate::parts::{Body, full};
use crate::yaml::to_yaml;

/// Answers larger than that are compressed for those who accept it (upstream's threshold).
const GZIP_ABOVE: usize = 128 * 1024;

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub(crate) struct Style {
    pub encoding: Encoding,
    pub pretty: bool,
    pub gzip: bool,
}

impl Style {
    /// What the client's headers and query say besides Accept: browsers and curl get pretty JSON.
    pub(crate) fn of(encoding: Encoding, pretty: bool, headers: &HeaderMap, query: &crate::request::Query) -> Self {
        let agent = text(headers, header::USER_AGENT);
        let by_agent = ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix));
        let pretty = pretty || query.optional_flag("pretty").unwrap_or(by_agent);
        let gzip = text(headers, header::ACCEPT_ENCODING).split(',').any(|e| e.trim().starts_with("gzip"));
        Self { encoding, pretty, gzip }
    }
}

/// A header as text, empty where there is none.
pub(crate) fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// An object's answer.
pub(crate) fn object(code: u16, document: &Document, style: Style) -> Response<Body> {
    bytes(code, encode(document), style)
}

/// An answer of any JSON value.
pub(crate) fn value(code: u16, value: &Value, style: Style) -> Response<Body> {
    match Document::new(value.clone()) {
        Some(document) => object(code, &document, style),
        None => bytes(code, value.to_string().into(), style),
    }
}

/// An answer whose compact JSON is at hand.
pub(crate) fn bytes(code: u16, json: Bytes, style: Style) -> Response<Body> {
    let (media, body) = match (style.encoding, style.pretty) {
        (Encoding::Json, false) => ("application/json", [json.as_ref(), b"\n"].concat()),
        (Encoding::Json, true) => ("application/json", pretty(&json)),
        (Encoding::Yaml, _) => ("application/yaml", yaml(&json)),
        (Encoding::Protobuf, _) => match Document::parse(&json).ok().and_then(|d| crate::protobuf::of(&d)) {
            Some(bytes) => ("application/vnd.kubernetes.protobuf", bytes),
            None => ("application/json", json.to_vec()),
        },
    };
    sized(code, media, body.into(), style)
}

/// An answer of some media type, compressed where it is large and the client accepts that.
pub(crate) fn sized(code: u16, media: &'static str, body: Bytes, style: Style) -> Response<Body> {
    let zip = style.gzip && body.len() > GZIP_ABOVE;
    let body = if zip { gzip(&body).into() } else { body };
    let mut response = whole(code, media, body);
    if zip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// A whole answer of some media type.
pub(crate) fn whole(code: u16, media: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A failure's answer.
pub(crate) fn status(status: &Status, style: Style) -> Response<Body> {
    let mut response = bytes(status.code, status.to_bytes().into(), style);
    let seconds = status.details.as_ref().and_then(|d| d.retry_after_seconds);
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers, each text once.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for (index, warning) in warnings.iter().enumerate() {
        let first = warnings.iter().position(|w| w == warning) == Some(index);
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        let clean: String = quoted.chars().filter(|c| !c.is_control()).collect();
        if let (true, Ok(value)) = (first, HeaderValue::from_str(&format!("299 - \"{clean}\""))) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// What audit is to note of a request, carried by its response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Annotations(pub Vec<(String, String)>);

/// Hands annotations on to audit.
pub(crate) fn annotate(response: &mut Response<Body>, annotations: Vec<(String, String)>) {
    if !annotations.is_empty() {
        response.extensions_mut().insert(Annotations(annotations));
    }
}

/// Indented by two blanks, keys as they are.
fn pretty(json: &[u8]) -> Vec<u8> {
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    let mut text = serde_json::to_vec_pretty(&value).unwrap_or_default();
    text.push(b'\n');
    text
}

fn yaml(json: &[u8]) -> Vec<u8> {
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    to_yaml(&value).into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::new(1));
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}
