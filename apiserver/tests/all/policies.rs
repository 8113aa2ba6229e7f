//! Admission policies on the server's own write path.

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::memory::Memory;

use super::{MAPS, ask, line, send, server};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

fn constraints() -> Value {
    let rule = json!({"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
    let selector = json!({"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]});
    json!({"resourceRules": [rule], "objectSelector": selector})
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_validating_policy_denies_warns_and_takes_parameters() {
    let server = server(Memory::new()).await;
    ask(&server, Method::POST, "/api/v1/namespaces", Some(json!({"metadata": {"name": "a"}}))).await;
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": constraints(),
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "named", "expression": "object.metadata.name != 'limits'"}],
        "variables": [{"name": "size", "expression": "has(object.data) ? object.data.size() : 0"}],
        "validations": [{"expression": "variables.size <= int(params.data.most)", "reason": "Forbidden",
            "messageExpression": "'%d of %s'.format([dyn(variables.size), params.data.most])"}],
    }});
    let (code, made) = ask(&server, Method::POST, &format!("{GROUP}/validatingadmissionpolicies"), Some(policy)).await;
    assert_eq!((code, made["spec"]["failurePolicy"].as_str()), (201, Some("Fail")), "{made}");
    let binding = |name: &str, actions: Value| {
        json!({"metadata": {"name": name}, "spec": {"policyName": "p", "validationActions": actions,
            "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}}})
    };
    let bindings = format!("{GROUP}/validatingadmissionpolicybindings");
    ask(&server, Method::POST, &bindings, Some(binding("warn", json!(["Warn"])))).await;
    let (code, refused) = ask(&server, Method::POST, MAPS, Some(map("one", json!({})))).await;
    let want = "configmaps \"one\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'warn' denied request: failed to \
                configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!((code, refused["message"].as_str()), (422, Some(want)));
    let unbound = json!({"metadata": {"name": "limits", "labels": {"free": ""}}, "data": {"most": "1"}});
    assert_eq!(ask(&server, Method::POST, MAPS, Some(unbound)).await.0, 201, "the selector leaves it out");
    assert_eq!(ask(&server, Method::POST, MAPS, Some(map("one", json!({"a": "1"})))).await.0, 201);
    let two = map("two", json!({"a": "1", "b": "2"}));
    let answer = send(&server, "system:masters", Method::POST, MAPS, Some(two.clone())).await;
    let warning = answer.headers().get("warning").and_then(|w| w.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!(answer.status(), 201, "{:?}", answer.into_body().collect().await.map(|b| b.to_bytes()));
    assert!(
        warning.contains("Validation failed for ValidatingAdmissionPolicy 'p' with binding 'warn': 2 of 1"),
        "{warning}"
    );
    ask(&server, Method::POST, &bindings, Some(binding("deny", json!(["Deny"])))).await;
    let (code, refused) = ask(&server, Method::PUT, &format!("{MAPS}/two"), Some(two)).await;
    let want =
        "configmaps \"two\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'deny' denied request: 2 of 1";
    assert_eq!((code, refused["reason"].as_str(), refused["message"].as_str()), (403, Some("Forbidden"), Some(want)));
}

#[tokio::test]
async fn a_mutating_policy_applies_and_patches() {
    let server = server(Memory::new()).await;
    ask(&server, Method::POST, "/api/v1/namespaces", Some(json!({"metadata": {"name": "a"}}))).await;
    let apply = "Object{metadata: Object.metadata{labels: {'seen': request.operation}}}";
    let patch = "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x.io/a'), value: 'c'}]";
    let policy = json!({"metadata": {"name": "m"}, "spec": {
        "matchConstraints": constraints(),
        "reinvocationPolicy": "Never",
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}},
        ],
    }});
    let (code, made) = ask(&server, Method::POST, &format!("{GROUP}/mutatingadmissionpolicies"), Some(policy)).await;
    assert_eq!(code, 201, "{made}");
    let binding = json!({"metadata": {"name": "m"}, "spec": {"policyName": "m"}});
    let bindings = format!("{GROUP}/mutatingadmissionpolicybindings");
    assert_eq!(ask(&server, Method::POST, &bindings, Some(binding)).await.0, 201);
    let (code, made) = ask(&server, Method::POST, MAPS, Some(map("one", json!({"x": "y"})))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["labels"], json!({"seen": "CREATE", "x.io/a": "c"}));
}

#[tokio::test]
async fn a_mutating_policy_looks_again_after_later_ones() {
    let server = server(Memory::new()).await;
    ask(&server, Method::POST, "/api/v1/namespaces", Some(json!({"metadata": {"name": "a"}}))).await;
    let bindings = format!("{GROUP}/mutatingadmissionpolicybindings");
    let counts = |key: &str| {
        let value = "string(size(object.metadata.labels))";
        format!("[JSONPatch{{op: 'add', path: '/metadata/labels/{key}', value: {value}}}]")
    };
    let late = "[JSONPatch{op: 'add', path: '/metadata/labels/late', value: ''}]".to_owned();
    for (name, again, patch) in [("a", "IfNeeded", counts("a")), ("b", "Never", counts("b")), ("c", "Never", late)] {
        let spec = json!({"matchConstraints": constraints(), "reinvocationPolicy": again,
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]});
        let policy = json!({"metadata": {"name": name}, "spec": spec});
        let (code, made) =
            ask(&server, Method::POST, &format!("{GROUP}/mutatingadmissionpolicies"), Some(policy)).await;
        assert_eq!(code, 201, "{made}");
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
        assert_eq!(ask(&server, Method::POST, &bindings, Some(binding)).await.0, 201);
    }
    let map = json!({"metadata": {"name": "one", "labels": {"x": ""}}});
    let (code, made) = ask(&server, Method::POST, MAPS, Some(map)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        made["metadata"]["labels"],
        json!({"x": "", "a": "4", "b": "2", "late": ""}),
        "a counted again, b did not"
    );
}

#[tokio::test]
async fn a_policy_is_told_what_is_wrong_with_its_expressions() {
    let server = server(Memory::new()).await;
    let validations = json!([{"expression": "object.datum.size() > 1"}, {"expression": "object.data.size() > 1"}]);
    let spec = json!({"matchConstraints": constraints(), "validations": validations});
    let path = format!("{GROUP}/validatingadmissionpolicies");
    let (code, made) = ask(&server, Method::POST, &path, Some(json!({"metadata": {"name": "p"}, "spec": spec}))).await;
    assert_eq!(code, 201, "{made}");
    let version = made["metadata"]["resourceVersion"].as_str().expect("a version");
    let watch = format!("{path}?watch=1&resourceVersion={version}");
    let mut watch = send(&server, "system:masters", Method::GET, &watch, None).await.into_body();
    let seen = line(&mut watch).await;
    let want =
        "v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined field 'datum'\n | object.datum.size() > 1\n | ......^\n";
    let warning = json!({"fieldRef": "spec.validations[0].expression", "warning": format!("/{want}")});
    let checked = json!({"observedGeneration": 1, "typeChecking": {"expressionWarnings": [warning]}});
    assert_eq!(seen["object"]["status"], checked);
    let managers = seen["object"]["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    assert!(managers.iter().any(|m| m["manager"] == "validatingadmissionpolicy-status" && m["operation"] == "Apply"));
}
