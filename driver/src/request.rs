//! Requests to the API server: paths, media types, and failures in the server's own words.

use http::{Method, Request};
use reconcile::{Failure, ObjectName, Resource};
use serde_json::Value;

/// The media type of metadata only; a server that cannot do that sends the whole object.
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// What of an object the answer shall carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Metadata,
}

/// The path of all objects of a resource, in a namespace unless that is empty.
pub(crate) fn collection(resource: &Resource, namespace: &str) -> String {
    let root = match resource.group.as_ref() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    match namespace {
        "" => format!("{root}/{}", resource.plural),
        namespace => format!("{root}/namespaces/{namespace}/{}", resource.plural),
    }
}

/// The path of one object, or of a subresource unless that is empty.
pub(crate) fn object(resource: &Resource, name: &ObjectName, subresource: &str) -> String {
    let collection = collection(resource, &name.namespace);
    match subresource {
        "" => format!("{collection}/{}", name.name),
        subresource => format!("{collection}/{}/{subresource}", name.name),
    }
}

/// A GET of one object.
pub(crate) fn get(path: &str, form: Form) -> Result<Request<Vec<u8>>, Failure> {
    build(Request::get(path).header("accept", accept(form, PARTIAL)), Vec::new())
}

/// A GET of a collection, with query parameters.
pub(crate) fn list(path: &str, query: &str, form: Form) -> Result<Request<Vec<u8>>, Failure> {
    build(Request::get(format!("{path}?{query}")).header("accept", accept(form, PARTIAL_LIST)), Vec::new())
}

/// A watch of a collection.
pub(crate) fn watch(path: &str, query: &str, form: Form) -> Result<Request<Vec<u8>>, Failure> {
    let uri = format!("{path}?watch=true&allowWatchBookmarks=true&{query}");
    build(Request::get(uri).header("accept", accept(form, PARTIAL)), Vec::new())
}

/// A request with a JSON body.
pub(crate) fn send(method: Method, path: &str, media: &str, body: &Value) -> Result<Request<Vec<u8>>, Failure> {
    let request = Request::builder().method(method).uri(path).header("accept", "application/json");
    build(request.header("content-type", media), body.to_string().into_bytes())
}

fn accept(form: Form, partial: &'static str) -> &'static str {
    match form {
        Form::Whole => "application/json",
        Form::Metadata => partial,
    }
}

fn build(request: http::request::Builder, body: Vec<u8>) -> Result<Request<Vec<u8>>, Failure> {
    request.body(body).map_err(|e| Failure { code: 0, reason: "BadRequest".into(), message: e.to_string() })
}

/// A failure of the client in the server's words where it has any.
pub(crate) fn failure(error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => {
            Failure { code: status.code, reason: status.reason.clone(), message: status.message.clone() }
        }
        other => Failure { code: 0, reason: "Unreachable".into(), message: chain(&other) },
    }
}

/// An error and everything it stands on.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};
    use reconcile::{ObjectName, Resource};

    use super::{collection, object};

    #[test]
    fn paths_are_kubernetes_own() {
        let name = |namespace: &str| ObjectName { namespace: namespace.into(), name: "x".into() };
        assert_eq!(collection(&Resource::of::<Pod>(), ""), "/api/v1/pods");
        assert_eq!(object(&Resource::of::<Pod>(), &name("ns"), "status"), "/api/v1/namespaces/ns/pods/x/status");
        assert_eq!(object(&Resource::of::<Node>(), &name(""), ""), "/api/v1/nodes/x");
        assert_eq!(object(&Resource::of::<Deployment>(), &name("a"), ""), "/apis/apps/v1/namespaces/a/deployments/x");
    }
}
