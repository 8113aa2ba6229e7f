//! What is read from a registry: manifests and blobs. Nothing is believed that a digest can tell.

use bytes::Bytes;
use futures::stream::BoxStream;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::{Endpoint, Registry, answer};
use crate::document::{self, Descriptor, malformed};
use crate::reference::is_digest;
use crate::{Error, Result, blob};

const ACCEPTED: [&str; 4] = [document::MANIFEST, document::INDEX, document::DOCKER_MANIFEST, document::DOCKER_INDEX];

/// Bytes of a blob that are under way, from `offset` on.
pub(crate) struct Arriving {
    pub(crate) offset: u64,
    pub(crate) stream: BoxStream<'static, Result<Bytes>>,
    /// It is labelled as a page for people; the digest will tell.
    pub(crate) html: bool,
}

impl Registry {
    /// A manifest or index from the first place that has it, and the digest of what really arrived. `size`, where it is known,
    /// is what whoever names it says.
    pub(crate) async fn document(
        &self,
        tag_or_digest: &str,
        size: Option<u64>,
        what: &str,
    ) -> Result<(Vec<u8>, String)> {
        let mut failure = Error::NotFound(what.to_owned());
        for endpoint in &self.endpoints {
            match endpoint.manifest(tag_or_digest, what).await {
                Ok((bytes, digest)) => match size.filter(|size| *size != bytes.len() as u64) {
                    None => return Ok((bytes, digest)),
                    Some(size) => failure = malformed(&digest, format!("{} bytes; its index says {size}", bytes.len())),
                },
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl Endpoint {
    /// A manifest or index by tag or digest, and the digest of what really came.
    pub(crate) async fn manifest(&self, tag_or_digest: &str, what: &str) -> Result<(Vec<u8>, String)> {
        let mut request = self.request(Method::GET, &format!("manifests/{tag_or_digest}"), what)?;
        request.headers.insert(ACCEPT, super::token::header(&ACCEPTED.join(", "))?);
        let response = self.send(&request).await?;
        if response.status() != StatusCode::OK {
            return Err(answer::failure(response, what).await);
        }
        if answer::is_html(&response) {
            let host = response.url().host_str().unwrap_or_default().to_owned();
            return Err(malformed(what, format!("{host} answers with an HTML page instead of a manifest")));
        }
        let said = text(&response, "docker-content-digest");
        let kind = text(&response, CONTENT_TYPE.as_str());
        let bytes = answer::bounded(response, document::MAX_DOCUMENT_BYTES, what).await?;
        let got = blob::digest(&bytes);
        let expected = Some(tag_or_digest.to_owned()).filter(|text| is_digest(text)).or(said.filter(|d| is_digest(d)));
        if let Some(digest) = expected.filter(|expected| *expected != got) {
            return Err(Error::Digest { digest, got });
        }
        document::agrees(&bytes, kind.as_deref(), what)?;
        Ok((bytes, got))
    }

    /// The bytes of a blob from `offset` on, or all of them where the registry knows no ranges.
    pub(crate) async fn blob(&self, wanted: &Descriptor, offset: u64) -> Result<Arriving> {
        let what = wanted.digest.as_str();
        let mut request = self.request(Method::GET, &format!("blobs/{what}"), what)?;
        request.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0 {
            request.headers.insert(RANGE, super::token::header(&format!("bytes={offset}-"))?);
        }
        let response = self.send(&request).await?;
        let (offset, expected) = match response.status() {
            StatusCode::OK => (0, Some(wanted.size)),
            StatusCode::PARTIAL_CONTENT if offset > 0 => {
                let from = text(&response, CONTENT_RANGE.as_str()).and_then(|range| start(&range));
                if from.is_some_and(|from| from != offset) {
                    return Err(malformed(
                        what,
                        format!("the registry was asked for bytes from {offset} on and sends others"),
                    ));
                }
                (offset, wanted.size.checked_sub(offset))
            }
            // All of it, then.
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => return Box::pin(self.blob(wanted, 0)).await,
            _ => return Err(answer::failure(response, what).await),
        };
        let (html, length) = (answer::is_html(&response), response.content_length());
        if let Some((length, expected)) = length.zip(expected).filter(|(length, expected)| length != expected) {
            let page = if html { ", an HTML page" } else { "" };
            return Err(malformed(
                what,
                format!("the registry sends {length} bytes{page}; its manifest says {expected}"),
            ));
        }
        Ok(Arriving { offset, stream: answer::chunks(response, wanted.digest.clone()), html })
    }
}

fn text(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The first byte of `bytes FIRST-LAST/SIZE`.
fn start(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
