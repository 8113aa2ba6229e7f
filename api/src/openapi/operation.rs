//! One operation of a path: its id, parameters, bodies.

use serde_json::{Map, Value, json};

use super::reference;

/// What is said of an operation.
pub(super) struct Operation {
    /// The HTTP method, lower-case.
    pub(super) method: &'static str,
    /// `x-kubernetes-action`; empty for none.
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    /// `x-kubernetes-group-version-kind`.
    pub(super) kind: Option<Value>,
    pub(super) query: Vec<&'static str>,
    pub(super) body: Body,
    /// The type of the answer; empty for text.
    pub(super) answer: String,
    pub(super) codes: &'static [&'static str],
}

/// What a request's body is.
pub(super) enum Body {
    None,
    /// An object of a type, and whether it must be there.
    Type(String, bool),
    /// A patch of one of these media types.
    Patch(&'static [&'static str]),
}

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// Every path parameter and query parameter with its type.
const INTEGERS: [&str; 7] =
    ["limit", "timeoutSeconds", "gracePeriodSeconds", "limitBytes", "sinceSeconds", "tailLines", "ports"];
const BOOLEANS: [&str; 14] = [
    "allowWatchBookmarks",
    "sendInitialEvents",
    "watch",
    "force",
    "orphanDependents",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "previous",
    "timestamps",
    "stdin",
    "stdout",
    "stderr",
    "tty",
];

fn parameter(name: &str, place: &str) -> Value {
    let of = match name {
        name if INTEGERS.contains(&name) => "integer",
        name if BOOLEANS.contains(&name) => "boolean",
        _ => "string",
    };
    let mut parameter = json!({"name": name, "in": place, "schema": {"type": of, "uniqueItems": true}});
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

/// A path with its operations. Parameters that all of them have stand with the path.
pub(super) fn path(in_path: &[&str], operations: Vec<Operation>) -> Value {
    let shared: Vec<&str> = match operations.as_slice() {
        [] => Vec::new(),
        [first, rest @ ..] => {
            let in_all = |name: &&&str| rest.iter().all(|operation| operation.query.contains(name));
            first.query.iter().filter(in_all).copied().collect()
        }
    };
    let mut parameters: Vec<Value> = in_path.iter().map(|name| parameter(name, "path")).collect();
    parameters.extend(shared.iter().map(|name| parameter(name, "query")));
    parameters.sort_by_key(|p| p["name"].to_string());
    let mut out: Map<String, Value> =
        operations.into_iter().map(|operation| (operation.method.to_owned(), operation.render(&shared))).collect();
    if !parameters.is_empty() {
        out.insert("parameters".into(), parameters.into());
    }
    Value::Object(out)
}

impl Operation {
    fn render(self, shared: &[&str]) -> Value {
        let mut query: Vec<&str> = self.query.into_iter().filter(|name| !shared.contains(name)).collect();
        query.sort_unstable();
        let query: Vec<Value> = query.into_iter().map(|name| parameter(name, "query")).collect();
        let mut responses: Map<String, Value> =
            self.codes.iter().map(|code| ((*code).to_owned(), answer(code, &self.answer, self.action))).collect();
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        let mut out = json!({"tags": [self.tag], "operationId": self.id, "responses": responses});
        if !query.is_empty() {
            out["parameters"] = query.into();
        }
        if let Some(body) = self.body.render() {
            out["requestBody"] = body;
        }
        if !self.action.is_empty() {
            out["x-kubernetes-action"] = self.action.into();
        }
        if let Some(kind) = self.kind {
            out["x-kubernetes-group-version-kind"] = kind;
        }
        out
    }
}

impl Body {
    fn render(self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::Type(name, required) => {
                let mut body = json!({"content": {"*/*": {"schema": reference(&name)}}});
                if required {
                    body["required"] = true.into();
                }
                Some(body)
            }
            Self::Patch(media_types) => {
                let schema = json!({"schema": reference(&format!("{META}Patch"))});
                let content: Map<String, Value> =
                    media_types.iter().map(|of| ((*of).to_owned(), schema.clone())).collect();
                Some(json!({"content": content, "required": true}))
            }
        }
    }
}

fn answer(code: &str, name: &str, action: &str) -> Value {
    let description = match code {
        "201" => "Created",
        "202" => "Accepted",
        _ => "OK",
    };
    let schema = if name.is_empty() { json!({"type": "string"}) } else { reference(name) };
    let mut content: Map<String, Value> = match (action, name) {
        ("connect", _) => [("*/*".to_owned(), json!({"schema": schema}))].into_iter().collect(),
        (_, "") => ["application/json", "application/yaml", "text/plain"]
            .iter()
            .map(|of| ((*of).to_owned(), json!({"schema": schema})))
            .collect(),
        _ => MEDIA_TYPES.iter().map(|of| ((*of).to_owned(), json!({"schema": schema}))).collect(),
    };
    if matches!(action, "list" | "watch" | "watchlist") {
        content.insert("application/json;stream=watch".into(), json!({"schema": schema}));
    }
    json!({"description": description, "content": content})
}
