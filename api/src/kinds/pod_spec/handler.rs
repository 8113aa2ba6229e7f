//! Probes and lifecycle hooks.

use serde_json::Value;

use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, number, text};
use crate::validation::{invalid_each, non_negative, port_or_name, supported, text as names};

/// What a container does beside running: its hooks and probes. `grace` is the pod's termination grace period.
pub(super) fn lifecycle_and_probes(container: &Value, grace: Option<i64>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(hooks) = get(container, "lifecycle") {
        let path = path.child("lifecycle");
        for hook in ["postStart", "preStop"] {
            if let Some(action) = get(hooks, hook) {
                errors.extend(handler(action, grace, &path.child(hook)));
            }
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = get(container, kind) {
            errors.extend(probe(value, kind, grace, &path.child(kind)));
        }
    }
    errors
}

fn probe(probe: &Value, kind: &str, grace: Option<i64>, path: &Path) -> Errors {
    let mut errors = handler(probe, grace, path);
    let counts = ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    for field in counts {
        errors.extend(non_negative(number(probe, field), &path.child(field)));
    }
    let own_grace = number(probe, "terminationGracePeriodSeconds");
    let grace_path = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = own_grace.filter(|n| *n <= 0) {
        errors.push(Error::invalid(grace_path.clone(), seconds, "must be greater than 0"));
    }
    if kind == "readinessProbe" {
        if let Some(seconds) = own_grace {
            errors.push(Error::invalid(grace_path, seconds, "must not be set for readinessProbes"));
        }
    } else if number(probe, "successThreshold") != Some(1) {
        let threshold = number(probe, "successThreshold").unwrap_or_default();
        errors.push(Error::invalid(path.child("successThreshold"), threshold, "must be 1"));
    }
    errors
}

const ACTIONS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

fn handler(handler: &Value, grace: Option<i64>, path: &Path) -> Errors {
    let mut present = ACTIONS.iter().filter_map(|kind| Some((*kind, get(handler, kind)?)));
    let Some((kind, first)) = present.next() else {
        return vec![Error::required(path.clone(), "must specify a handler type")];
    };
    let mut errors = action(kind, first, grace, &path.child(kind));
    for (kind, _) in present {
        errors.push(Error::forbidden(path.child(kind), "may not specify more than 1 handler type"));
    }
    errors
}

fn action(kind: &str, action: &Value, grace: Option<i64>, path: &Path) -> Errors {
    match (kind, grace) {
        ("exec", _) if list(action, "command").is_empty() => vec![Error::required(path.child("command"), "")],
        ("httpGet", _) => http_get(action, path),
        ("tcpSocket" | "grpc", _) => port_or_name(action.get("port"), &path.child("port")),
        ("sleep", Some(grace)) => sleep(number(action, "seconds").unwrap_or_default(), grace, path),
        _ => Errors::new(),
    }
}

fn sleep(seconds: i64, grace: i64, path: &Path) -> Errors {
    if (0..=grace).contains(&seconds) {
        return Errors::new();
    }
    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
    vec![Error::invalid(path.clone(), seconds, detail)]
}

fn http_get(http: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if text(http, "path").is_empty() {
        errors.push(Error::required(path.child("path"), ""));
    }
    errors.extend(port_or_name(http.get("port"), &path.child("port")));
    errors.extend(supported(text(http, "scheme"), &path.child("scheme"), &["HTTP", "HTTPS"]));
    for header in list(http, "httpHeaders") {
        let name = text(header, "name");
        errors.extend(invalid_each(&path.child("httpHeaders"), name, names::http_header(name)));
    }
    errors
}
