//! A connection to the API server as a user's verb has it, and its requests.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use api::Status;
use clap::Args;
use client::kube::client::Body;
use futures::AsyncBufRead;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::instance::DEFAULT_DATA_DIR;

/// Which server, and as whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connection {
    /// The kubeconfig file. Default: the one that `trimtab up` wrote.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE", help_heading = "Connection")]
    kubeconfig: Option<OsString>,
    /// The namespace.
    #[arg(long, short, help_heading = "Connection")]
    namespace: Option<String>,
}

/// A client and the namespace that requests go to.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: client::Client,
    pub(crate) namespace: String,
    /// Whether the user named the namespace.
    pub(crate) explicit: bool,
}

/// A failure that the server told.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.0))]
pub(crate) struct Refusal(pub(crate) Box<Status>);

/// kubectl's wording of a Status.
fn told(status: &Status) -> String {
    match (status.reason.as_str(), &status.details) {
        ("Invalid", Some(details)) if !details.kind.is_empty() => {
            let text = status.message.split_once(" is invalid: ").map_or(status.message.as_str(), |(_, rest)| rest);
            let lines = match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
                Some(_) => details.causes.iter().map(|c| format!("\n* {}: {}", c.field, c.message)).collect::<String>(),
                None => format!(" {text}"),
            };
            format!("The {} {:?} is invalid:{lines}", details.kind, details.name)
        }
        ("", _) => format!("Error from server: {}", status.message),
        (reason, _) => format!("Error from server ({reason}): {}", status.message),
    }
}

/// Media types of patches.
pub(crate) mod patch {
    /// Server-side apply.
    pub(crate) const APPLY: &str = "application/apply-patch+yaml";
    /// RFC 6902.
    pub(crate) const JSON: &str = "application/json-patch+json";
    /// RFC 7386.
    pub(crate) const MERGE: &str = "application/merge-patch+json";
    /// Strategic merge.
    pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
}

/// The server's table form, with what printing needs of the objects.
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Plain JSON.
pub(crate) const JSON: &str = "application/json";

impl Connection {
    /// Connects lazily: only reads the kubeconfig.
    pub(crate) fn open(&self) -> Result<Session> {
        let default = || PathBuf::from(DEFAULT_DATA_DIR).join("admin.kubeconfig");
        // As for kubectl the variable may be a list, or empty; the first file that is there counts.
        let listed = self.kubeconfig.iter().flat_map(std::env::split_paths).filter(|p| !p.as_os_str().is_empty());
        let listed: Vec<PathBuf> = listed.collect();
        let path = listed.iter().find(|p| p.is_file()).or(listed.first()).cloned().unwrap_or_else(default);
        let target = client::Target::from_kubeconfig(&path)
            .with_context(|| format!("no cluster to talk to: {}", path.display()))?;
        let namespace = self.namespace.clone().unwrap_or_else(|| target.namespace.clone());
        Ok(Session { client: target.client()?, namespace, explicit: self.namespace.is_some() })
    }
}

impl Session {
    /// GET, as JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.accepting(path, JSON).await
    }

    /// GET in another form.
    pub(crate) async fn accepting(&self, path: &str, accept: &str) -> Result<Value> {
        let request = Request::get(path).header("Accept", accept);
        Ok(self.send(request.body(Vec::new())?).await?.1)
    }

    /// GET of what may not be there.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.get(path).await {
            Err(error) if is_not_found(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    /// A request with a JSON body.
    pub(crate) async fn write(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let request = Request::builder().method(method).uri(path).header("Content-Type", JSON).header("Accept", JSON);
        Ok(self.send(request.body(serde_json::to_vec(body)?)?).await?.1)
    }

    /// A patch; also says whether it created the object.
    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Result<(bool, Value)> {
        let request = Request::patch(path).header("Content-Type", kind).header("Accept", JSON);
        let (code, value) = self.send(request.body(serde_json::to_vec(body)?)?).await?;
        Ok((code == StatusCode::CREATED, value))
    }

    /// A body that goes on: logs, watches.
    pub(crate) async fn stream(&self, path: &str, accept: &str) -> Result<impl AsyncBufRead + use<>> {
        let request = Request::get(path).header("Accept", accept).body(Vec::new())?;
        self.client.request_stream(request).await.map_err(refused)
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<(StatusCode, Value)> {
        let response = self.client.send(request.map(Body::from)).await.map_err(refused)?;
        let (head, body) = response.into_parts();
        for warning in head.headers.get_all("Warning") {
            warn(warning.to_str().unwrap_or_default());
        }
        let bytes = body.collect().await.context("the answer broke off")?.to_bytes();
        if head.status.is_success() {
            return Ok((head.status, serde_json::from_slice(&bytes).context("the answer is no JSON")?));
        }
        match serde_json::from_slice::<Status>(&bytes) {
            Ok(status) => Err(Refusal(Box::new(status)).into()),
            Err(_) => {
                let text = String::from_utf8_lossy(&bytes);
                Err(anyhow!("the server answered {}: {}", head.status, text.trim()))
            }
        }
    }
}

/// `299 - "text"` of a Warning header, on standard error.
fn warn(header: &str) {
    let text = header.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"')).map_or(header, |(text, _)| text);
    eprintln!("Warning: {}", text.replace("\\\"", "\""));
}

/// A client's error, with a Status where the server sent one.
fn refused(error: client::kube::Error) -> anyhow::Error {
    match error {
        client::kube::Error::Api(status) => {
            let known = serde_json::to_value(&status).ok().and_then(|v| serde_json::from_value::<Status>(v).ok());
            match known {
                Some(status) => Refusal(Box::new(status)).into(),
                None => anyhow!("Error from server ({}): {}", status.reason, status.message),
            }
        }
        other => anyhow::Error::from(other).context("the server could not be reached"),
    }
}

/// Whether an error is the server's 404 for an object.
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    reason(error) == "NotFound"
}

/// The reason in the server's Status, if it told one.
pub(crate) fn reason(error: &anyhow::Error) -> &str {
    error.downcast_ref::<Refusal>().map_or("", |refusal| refusal.0.reason.as_str())
}

/// A query string of pairs; empty values are left out.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        escape(value, &mut out);
    }
    out
}

fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{query, told};
    use api::{GroupKind, GroupResource, Status, field};

    #[test]
    fn refusals_read_as_kubectl_tells_them() {
        let pods = GroupResource::new("", "pods");
        assert_eq!(told(&Status::not_found(&pods, "x")), "Error from server (NotFound): pods \"x\" not found");
        let kind = GroupKind { group: String::new(), kind: "Pod".into() };
        let error = field::Error::required(field::Path::new("spec"), "");
        let one = Status::invalid(&kind, "x", std::slice::from_ref(&error));
        assert_eq!(told(&one), "The Pod \"x\" is invalid: spec: Required value");
        let other = field::Error::required(field::Path::new("metadata"), "");
        let two = Status::invalid(&kind, "x", &[error, other]);
        assert_eq!(told(&two), "The Pod \"x\" is invalid:\n* spec: Required value\n* metadata: Required value");
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(query(&[("a", ""), ("b", "x=y, z"), ("c", "1")]), "?b=x%3Dy%2C%20z&c=1");
    }
}
