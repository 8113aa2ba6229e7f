//! What refers to a manifest at a registry (OCI distribution-spec, Listing Referrers and Referrers Tag Schema): the registry
//! tells, or an index under a tag that whoever pushes keeps.

use reqwest::header::{ACCEPT, LINK};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{Endpoint, Registry, answer, token};
use crate::document::{self, Descriptor, Document, INDEX, MAX_DOCUMENT_BYTES, malformed};
use crate::{Error, Result};

/// Documents that may refer to one.
pub(crate) const MAX_REFERRERS: usize = 1000;

impl Registry {
    /// What refers to a digest, at the first place that knows of anything: a mirror may have an image alone.
    pub(crate) async fn referrers(&self, subject: &str, kind: Option<&str>, what: &str) -> Result<Vec<Descriptor>> {
        let mut result = Err(Error::NotFound(what.to_owned()));
        for endpoint in &self.endpoints {
            match endpoint.referrers(subject, kind, what).await {
                Ok(found) if found.is_empty() => result = Ok(found),
                Ok(found) => return Ok(found),
                Err(error) if result.is_err() => result = Err(error),
                Err(_) => {}
            }
        }
        result
    }
}

impl Endpoint {
    /// What refers to a digest, of one artifact type or of all.
    async fn referrers(&self, subject: &str, kind: Option<&str>, what: &str) -> Result<Vec<Descriptor>> {
        let mut request = self.request(Method::GET, &format!("referrers/{subject}"), what)?;
        if let Some(kind) = kind {
            request.url.query_pairs_mut().append_pair("artifactType", kind);
        }
        request.headers.insert(ACCEPT, token::header(INDEX)?);
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let response = self.send(&request).await?;
            match response.status() {
                StatusCode::OK => {}
                // Of those that do not know the request not all say 404.
                StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED if pages == 0 => {
                    found = self.tagged(subject, what).await?;
                    break;
                }
                _ => return Err(answer::failure(response, what).await),
            }
            if answer::is_html(&response) {
                return Err(malformed(what, "an HTML page instead of a list of referrers"));
            }
            let next = next(&response).map(|next| self.resolve(response.url(), &next, what)).transpose()?;
            let bytes = answer::bounded(response, MAX_DOCUMENT_BYTES, what).await?;
            let of = format!("the referrers of {subject}");
            let Document::Index(index) = document::parse(&bytes, &of)? else {
                return Err(malformed(&of, "a manifest, not an index"));
            };
            found.extend(index.manifests);
            pages += 1;
            if found.len() > MAX_REFERRERS || pages > MAX_REFERRERS {
                return Err(malformed(&of, format!("more than {MAX_REFERRERS}")));
            }
            match next {
                Some(url) => request.url = url,
                None => break,
            }
        }
        // Whether the registry has chosen, or whoever keeps the index names types at all, is theirs.
        found.retain(|one| kind.is_none_or(|kind| one.artifact_type == kind));
        Ok(found)
    }

    async fn tagged(&self, subject: &str, what: &str) -> Result<Vec<Descriptor>> {
        let tag = tag(subject);
        match self.manifest(&tag, what).await {
            Ok((bytes, _)) => match document::parse(&bytes, &tag)? {
                Document::Index(index) => Ok(index.manifests),
                Document::Manifest(_) => Ok(Vec::new()),
            },
            Err(Error::NotFound(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Puts a document under a tag or its digest, and into the list of what refers to its subject, where the registry keeps
    /// none itself.
    pub(crate) async fn put_document(&self, name: &str, document: &Document, bytes: &[u8], what: &str) -> Result<()> {
        let own = document.describe(bytes);
        let listed = self.put_manifest(name, &own.media_type, bytes, what).await?;
        match document.subject() {
            Some(subject) if !listed => self.list(&subject.digest, own, what).await,
            _ => Ok(()),
        }
    }

    async fn list(&self, subject: &str, own: Descriptor, what: &str) -> Result<()> {
        let tag = tag(subject);
        let mut index = match self.manifest(&tag, what).await {
            Ok((bytes, _)) => match document::parse(&bytes, &tag)? {
                Document::Index(_) => document::json(&bytes, &tag)?,
                Document::Manifest(_) => return Err(malformed(&tag, "a manifest where referrers should be listed")),
            },
            Err(Error::NotFound(_)) => json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
            Err(error) => return Err(error),
        };
        // What others wrote stays as it is.
        let Some(Value::Array(all)) = index.get_mut("manifests") else { return Err(malformed(&tag, "no list")) };
        if all.iter().any(|one| one.get("digest").and_then(Value::as_str) == Some(&own.digest)) {
            return Ok(());
        }
        all.push(serde_json::to_value(own).map_err(|e| malformed(&tag, e))?);
        self.put_manifest(&tag, INDEX, index.to_string().as_bytes(), what).await.map(drop)
    }
}

/// The tag under which referrers of a digest are listed.
fn tag(subject: &str) -> String {
    subject.replace(':', "-")
}

/// The target of `Link: <target>; rel="next"` (RFC 8288).
fn next(response: &Response) -> Option<String> {
    let links = response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|links| links.split(',')).find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |one: &str| matches!(one.trim(), "rel=next" | "rel=\"next\"");
        parameters.split(';').any(is_next).then(|| target.to_owned())
    })
}
