//! OpenAPI v2 and v3 documents, derived from the schema table and the rows of the API server.

use serde_json::{Value, json};

use crate::schema::Schema;

/// What a document needs to know of one resource in one version.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Served {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<ServedSubresource>,
    pub schema: Schema,
}

/// One subresource.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ServedSubresource {
    pub name: String,
    /// Group, version and kind of its body.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

/// The OpenAPI v3 document of one group and version: all `served` must be of it.
pub fn v3(served: &[Served]) -> Value {
    let _ = served;
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": crate::schema::kubernetes_version()}, "paths": {}})
}

/// The OpenAPI v2 document of everything served.
pub fn v2(served: &[Served]) -> Value {
    let _ = served;
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": crate::schema::kubernetes_version()}, "paths": {}})
}
