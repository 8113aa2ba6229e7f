//! What may stand in an `APIService` (`k8s.io/kube-aggregator/pkg/apis/apiregistration/validation`).

use serde_json::Value;

use super::super::Change;
use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::tree::{get, number, text};
use crate::validation::invalid_each;
use crate::validation::text::{label_1035, port_number, subdomain};

/// An `APIService`.
pub(super) fn api_service(new: &Document, _: &Change<'_>) -> Errors {
    let (spec, path) = (new.at("/spec").unwrap_or(&Value::Null), Path::new("spec"));
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let mut errors = Errors::new();
    let wanted = format!("{version}.{group}");
    if !new.name().is_empty() && new.name() != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(Error::invalid(Path::new("metadata").child("name"), new.name(), detail));
    }
    match group {
        "" if version != "v1" => {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            errors.push(Error::required(path.child("group"), detail));
        }
        "" => {}
        group => errors.extend(invalid_each(&path.child("group"), group, subdomain(group))),
    }
    errors.extend(invalid_each(&path.child("version"), version, label_1035(version)));
    for (field, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let given = number(spec, field).unwrap_or_default();
        if !(1..=most).contains(&given) {
            let detail = format!("must be positive and less than {most}");
            errors.push(Error::invalid(path.child(field), given, detail));
        }
    }
    errors.extend(server(spec, &path));
    errors
}

/// Who answers, and how it is trusted.
fn server(spec: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let bundle = text(spec, "caBundle");
    let unchecked = spec.get("insecureSkipTLSVerify").and_then(Value::as_bool).unwrap_or_default();
    let unchecked_path = path.child("insecureSkipTLSVerify");
    let Some(service) = get(spec, "service") else {
        if !bundle.is_empty() {
            let size = format!("{} bytes", bundle.trim_end_matches('=').len() * 3 / 4);
            errors.push(Error::invalid(path.child("caBundle"), size, "local APIServices may not have a caBundle"));
        }
        if unchecked {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(Error::invalid(unchecked_path, true, detail));
        }
        return errors;
    };
    let path = path.child("service");
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            errors.push(Error::required(path.child(field), ""));
        }
    }
    let port = number(service, "port").unwrap_or(443);
    let wrong = port_number(port);
    if !wrong.is_empty() {
        errors.push(Error::invalid(path.child("port"), port, format!("port is not valid: {}", wrong.join(", "))));
    }
    if unchecked && !bundle.is_empty() {
        errors.push(Error::invalid(unchecked_path, true, "may not be true if caBundle is present"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::Document;
    use crate::kinds::rules;
    use crate::kinds::tests::create;

    fn check(name: &str, spec: Value) -> Vec<String> {
        let service = Document::new(json!({"metadata": {"name": name}, "spec": spec})).unwrap_or_default();
        create(rules("apiregistration.k8s.io", "APIService"), service)
    }

    #[test]
    fn a_service_has_the_name_of_its_version_and_priorities() {
        let spec =
            |group: &str| json!({"group": group, "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
        assert_eq!(check("v1.x.io", spec("x.io")), Vec::<String>::new());
        assert_eq!(
            check("a", spec("x.io")),
            ["metadata.name: Invalid value: \"a\": must be `spec.version+\".\"+spec.group`: \"v1.x.io\""]
        );
        assert_eq!(
            check("v1.", json!({"version": "v1", "service": {"name": "s"}, "versionPriority": 1})),
            [
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.service.namespace: Required value",
            ]
        );
    }
}
