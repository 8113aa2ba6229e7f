//! What may stand in the kinds of `resource.k8s.io` (`pkg/apis/resource/validation`). Expressions are checked where they
//! are used.

use serde_json::Value;

use super::super::Change;
use super::super::rule::{Must, Rule, check, keep};
use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::tree::{get, list, number, text, texts};
use crate::validation::invalid_each;
use crate::validation::labels::labels;
use crate::validation::text::{label, subdomain, subdomain_of_any_case};

const CLASS: &[Rule] =
    &[Rule("spec!.selectors[*]", Must::Pass(selector)), Rule("spec!.config[*]", Must::Pass(configuration))];

/// A `DeviceClass`.
pub(super) fn device_class(new: &Document, _: &Change<'_>) -> Errors {
    check(CLASS, new)
}

fn selector(selector: &Value, path: &Path) -> Errors {
    match get(selector, "cel") {
        None => vec![Error::required(path.child("cel"), "")],
        Some(_) => Errors::new(),
    }
}

/// A driver's name: a subdomain of up to 63 characters, in any case.
fn driver(name: &str, path: &Path) -> Errors {
    match name {
        "" => vec![Error::required(path.clone(), "")],
        name if name.len() > 63 => vec![Error::too_long(path.clone(), 63)],
        name => invalid_each(path, name, subdomain_of_any_case(name)),
    }
}

fn configuration(configuration: &Value, path: &Path) -> Errors {
    let path = path.child("opaque");
    let Some(opaque) = get(configuration, "opaque") else { return vec![Error::required(path, "")] };
    let mut errors = Errors::new();
    if get(opaque, "parameters").is_none() {
        errors.push(Error::required(path.child("parameters"), ""));
    }
    errors.extend(driver(text(opaque, "driver"), &path.child("driver")));
    errors
}

/// A `ResourceClaim`: its spec stays.
pub(super) fn claim(new: &Document, change: &Change<'_>) -> Errors {
    match change.old {
        Some(_) => keep(&["spec"], false, new, change),
        None => devices(new.at("/spec/devices"), &Path::new("spec").child("devices")),
    }
}

/// A `ResourceClaimTemplate`: its spec stays.
pub(super) fn claim_template(new: &Document, change: &Change<'_>) -> Errors {
    let path = Path::new("spec");
    let mut errors = labels(new.at("/spec/metadata/labels"), &path.child("metadata").child("labels"));
    errors.extend(devices(new.at("/spec/spec/devices"), &path.child("spec").child("devices")));
    errors.extend(keep(&["spec"], true, new, change));
    errors
}

fn devices(devices: Option<&Value>, path: &Path) -> Errors {
    let devices = devices.unwrap_or(&Value::Null);
    let requests = list(devices, "requests");
    let each = |field: &str| list(devices, field).iter().enumerate().collect::<Vec<_>>();
    let mut errors = Errors::new();
    for (i, request) in requests.iter().enumerate() {
        errors.extend(self::request(request, &path.child("requests").index(i)));
    }
    let names = names(requests);
    for (i, constraint) in each("constraints") {
        let path = path.child("constraints").index(i);
        errors.extend(references(constraint, &names, &path));
        errors.extend(attribute(constraint, &path));
    }
    for (i, config) in each("config") {
        let path = path.child("config").index(i);
        errors.extend(references(config, &names, &path));
        errors.extend(configuration(config, &path));
    }
    errors
}

/// What a constraint may name: requests, and their alternatives after a slash.
fn names(requests: &[Value]) -> Vec<String> {
    let mut names = Vec::new();
    for request in requests {
        let name = text(request, "name");
        names.push(name.to_owned());
        names.extend(list(request, "firstAvailable").iter().map(|sub| format!("{name}/{}", text(sub, "name"))));
    }
    names
}

fn references(of: &Value, names: &[String], path: &Path) -> Errors {
    let detail =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let mut errors = Errors::new();
    for (i, name) in texts(of, "requests").into_iter().enumerate() {
        let path = path.child("requests").index(i);
        if name.split('/').count() <= 2 {
            errors.extend(name.split('/').flat_map(|part| invalid_each(&path, part, label(part))));
        }
        if !names.iter().any(|known| known == name) {
            errors.push(Error::invalid(path, name, detail));
        }
    }
    errors
}

fn attribute(constraint: &Value, path: &Path) -> Errors {
    let field = ["matchAttribute", "distinctAttribute"].into_iter().find(|field| get(constraint, field).is_some());
    let Some(field) = field else {
        let detail =
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        return vec![Error::required(path.clone(), detail)];
    };
    let (name, path) = (text(constraint, field), path.child(field));
    let (domain, id) = name.split_once('/').unwrap_or(("", name));
    let mut errors = if is_identifier(id) { Errors::new() } else { vec![Error::invalid(path.clone(), id, IDENTIFIER)] };
    if domain.is_empty() {
        errors.push(Error::invalid(path, name, "must include a domain"));
    } else {
        errors.extend(invalid_each(&path, domain, subdomain_of_any_case(domain)));
    }
    errors
}

const IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
    alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
    '[A-Za-z_][A-Za-z0-9_]*')";

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn request(request: &Value, path: &Path) -> Errors {
    let mut errors = request_name(request, path);
    match (get(request, "exactly"), list(request, "firstAvailable")) {
        (None, []) => {
            errors.push(Error::required(path.clone(), "exactly one of `exactly` or `firstAvailable` is required"));
        }
        (Some(_), [_, ..]) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(Error::invalid(path.clone(), Value::Null, detail));
        }
        (Some(exactly), []) => errors.extend(wanted(exactly, &path.child("exactly"))),
        (None, alternatives) => {
            for (i, alternative) in alternatives.iter().enumerate() {
                let path = path.child("firstAvailable").index(i);
                errors.extend(request_name(alternative, &path));
                errors.extend(wanted(alternative, &path));
            }
        }
    }
    errors
}

fn request_name(request: &Value, path: &Path) -> Errors {
    let name = text(request, "name");
    invalid_each(&path.child("name"), name, label(name))
}

/// The class, and how many of it.
fn wanted(of: &Value, path: &Path) -> Errors {
    let mut errors = match text(of, "deviceClassName") {
        "" => vec![Error::required(path.child("deviceClassName"), "")],
        class => invalid_each(&path.child("deviceClassName"), class, subdomain(class)),
    };
    for (i, one) in list(of, "selectors").iter().enumerate() {
        errors.extend(selector(one, &path.child("selectors").index(i)));
    }
    let count = number(of, "count").unwrap_or_default();
    let at = path.child("count");
    match text(of, "allocationMode") {
        "ExactCount" if count <= 0 => errors.push(Error::invalid(at, count, "must be greater than zero")),
        "All" if count != 0 => {
            errors.push(Error::invalid(at, count, "must not be specified when allocationMode is 'All'"));
        }
        "ExactCount" | "All" => {}
        other => errors.push(Error::not_supported(path.child("allocationMode"), other, &["All", "ExactCount"])),
    }
    errors
}

const SLICE: &[Rule] = &[
    Rule("spec!.pool!.generation", Must::AtLeast(0, "must be greater than or equal to zero")),
    Rule("spec!.pool!.resourceSliceCount", Must::Number(1, "must be greater than zero")),
    Rule("spec!", Must::Hold(slice_node)),
];

/// A `ResourceSlice`: its driver, pool and node stay.
pub(super) fn slice(new: &Document, change: &Change<'_>) -> Errors {
    let path = Path::new("spec");
    let name = new.str_at("/spec/driver");
    let mut errors = match name {
        "" => vec![Error::required(path.child("driver"), "")],
        name => invalid_each(&path.child("driver"), name, subdomain(name)),
    };
    let at = path.child("pool").child("name");
    errors.extend(match new.str_at("/spec/pool/name") {
        "" => vec![Error::required(at, "")],
        pool if pool.len() > 253 => vec![Error::too_long(at, 253)],
        pool => pool.split('/').flat_map(|part| invalid_each(&at, part, subdomain(part))).collect(),
    });
    errors.extend(check(SLICE, new));
    errors.extend(keep(&["spec.driver", "spec.pool.name", "spec.nodeName"], true, new, change));
    errors
}

/// Where the devices are: one of four ways.
fn slice_node(spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let node = get(spec, "nodeName").and_then(Value::as_str);
    match node {
        Some("") => {
            let detail = "must be either unset or set to a non-empty string";
            errors.push(Error::invalid(path.child("nodeName"), "", detail));
        }
        Some(node) => errors.extend(invalid_each(&path.child("nodeName"), node, subdomain(node))),
        None => {}
    }
    let set = |field: &&str| get(spec, field).is_some_and(|v| v != false && v != "");
    let ways = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let all = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match ways.iter().filter(|way| set(way)).count() {
        1 => {}
        0 => errors.push(Error::required(path.clone(), all)),
        _ => {
            let detail = format!("{all}, but multiple fields are set");
            errors.push(Error::invalid(path.clone(), Value::Null, detail));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::super::RESOURCE_CLAIM;
    use crate::Document;
    use crate::kinds::tests::create;
    use serde_json::{Value, json};

    #[test]
    fn constraints_name_requests_of_the_claim() {
        let claim = |devices: Value| Document::new(json!({"spec": {"devices": devices}})).unwrap_or_default();
        let requests = json!([{"name": "r", "exactly": {"deviceClassName": "c"}}]);
        let constraint = |name: &str| json!([{"requests": [name], "matchAttribute": "a.b/c"}]);
        let good = json!({"requests": requests, "constraints": constraint("r")});
        assert_eq!(create(&RESOURCE_CLAIM, claim(good)), Vec::<String>::new());
        let bad = json!({"requests": requests, "constraints": constraint("s")});
        let detail =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        assert_eq!(
            create(&RESOURCE_CLAIM, claim(bad)),
            [format!("spec.devices.constraints[0].requests[0]: Invalid value: \"s\": {detail}")]
        );
    }
}
