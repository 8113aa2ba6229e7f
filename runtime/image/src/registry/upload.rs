//! What is written to a registry: blobs and manifests (OCI distribution-spec, Push).

use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Body, Method, StatusCode, Url};

use super::{Endpoint, SLOWEST_BYTES_PER_S, answer};
use crate::document::{Descriptor, malformed};
use crate::{Error, Result};

impl Endpoint {
    /// Whether the registry has a blob in our repository.
    pub(crate) async fn has_blob(&self, digest: &str) -> Result<bool> {
        let request = self.request(Method::HEAD, &format!("blobs/{digest}"), digest)?;
        let response = self.send(&request).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(answer::failure(response, digest).await),
        }
    }

    /// Where to send a blob to. `None` where the registry could take it over from another repository of its own.
    pub(crate) async fn begin_upload(&self, digest: &str, from: Option<&str>) -> Result<Option<Url>> {
        let mut request = self.request(Method::POST, "blobs/uploads/", digest)?;
        if let Some(from) = from {
            request.url.query_pairs_mut().append_pair("mount", digest).append_pair("from", from);
        }
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.send(&request).await?;
        match response.status() {
            StatusCode::CREATED => Ok(None),
            StatusCode::ACCEPTED => {
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let location = location.ok_or_else(|| malformed(digest, "the registry names no place to upload to"))?;
                self.resolve(response.url(), location, digest).map(Some)
            }
            _ => Err(answer::failure(response, digest).await),
        }
    }

    /// Sends a whole blob to where an upload was begun.
    pub(crate) async fn upload(
        &self,
        descriptor: &Descriptor,
        mut place: Url,
        body: &(dyn Fn() -> Result<Body> + Sync),
    ) -> Result<()> {
        let digest = descriptor.digest.as_str();
        place.query_pairs_mut().append_pair("digest", digest);
        let mut request = self.request(Method::PUT, "", digest)?;
        request.url = place;
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from(descriptor.size));
        request.body = Some(body);
        request.patience += Duration::from_secs(descriptor.size / SLOWEST_BYTES_PER_S);
        let response = self.send(&request).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(answer::failure(response, digest).await),
        }
    }

    /// Puts a manifest under a tag or digest. Whether the registry has noted what it refers to.
    pub(super) async fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8], what: &str) -> Result<bool> {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let body = || Ok(Body::from(bytes.clone()));
        let mut request = self.request(Method::PUT, &format!("manifests/{tag}"), what)?;
        request.headers.insert(CONTENT_TYPE, super::token::header(media_type)?);
        request.body = Some(&body);
        let response = self.send(&request).await?;
        if response.status() != StatusCode::CREATED {
            return Err(answer::failure(response, what).await);
        }
        let said = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let listed = response.headers().contains_key("oci-subject");
        let digest = crate::blob::digest(&bytes);
        match said.filter(|said| *said != digest) {
            Some(got) => Err(Error::Digest { digest, got: got.to_owned() }),
            None => Ok(listed),
        }
    }
}
