//! Bodies against what kube-apiserver v1.37 answered to the same ones.

use serde_json::{Value, json};

use super::{FieldValidation, Format};
use crate::{GroupVersionKind, Schema};

fn decode(
    kind: (&str, &str, &str),
    body: &str,
    format: Format,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), String> {
    let schema = Schema::of_kind(kind.0, kind.1, kind.2).expect("a kind");
    let decoded = schema.decode(body.as_bytes(), format, validation);
    decoded.map(|d| (d.document.into_value(), d.warnings)).map_err(|status| {
        assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"));
        status.message
    })
}

const CONFIG_MAP: (&str, &str, &str) = ("", "v1", "ConfigMap");
const POD: (&str, &str, &str) = ("", "v1", "Pod");

#[test]
fn unknown_and_duplicate_fields_are_told_in_order() {
    let cases = [
        (
            CONFIG_MAP,
            r#"{"nope":1,"metadata":{"name":"n","x":2},"data":{"k":"v","k":"w"}}"#,
            vec![r#"unknown field "nope""#, r#"unknown field "metadata.x""#, r#"duplicate field "data.k""#],
        ),
        (
            CONFIG_MAP,
            r#"{"metadata":{"name":"a","name":"a","labels":{"a":"b","a":"c"}},"data":{"k":"v","k":"w"},"data":{"l":"m"}}"#,
            vec![
                r#"duplicate field "metadata.name""#,
                r#"duplicate field "metadata.labels.a""#,
                r#"duplicate field "data.k""#,
                r#"duplicate field "data""#,
            ],
        ),
        (CONFIG_MAP, r#"{"Data":{"k":"v"}}"#, vec![r#"unknown field "Data""#]),
        (
            POD,
            r#"{"spec":{"containers":[{"name":"c","nope":[1],"ports":[{"containerPort":1,"x":1}],"image":"i","image":"j"}]}}"#,
            vec![
                r#"unknown field "spec.containers[0].nope""#,
                r#"unknown field "spec.containers[0].ports[0].x""#,
                r#"duplicate field "spec.containers[0].image""#,
            ],
        ),
    ];
    for (kind, body, expected) in cases {
        let (_, warnings) = decode(kind, body, Format::Json, FieldValidation::Warn).expect(body);
        assert_eq!(warnings, expected, "{body}");
        let error = decode(kind, body, Format::Json, FieldValidation::Strict).expect_err(body);
        let name = kind.2;
        let expected = expected.join(", ");
        let prefix = format!("{name} in version \"v1\" cannot be handled as a {name}: strict decoding error: ");
        assert_eq!(error, format!("{prefix}{expected}"));
        assert_eq!(decode(kind, body, Format::Json, FieldValidation::Ignore).expect(body).1, Vec::<String>::new());
    }
}

#[test]
fn duplicate_objects_merge_and_the_last_scalar_counts() {
    let body = r#"{"data":{"k":"v","k":"w"},"data":{"l":"m"},"immutable":null}"#;
    let (value, _) = decode(CONFIG_MAP, body, Format::Json, FieldValidation::Warn).expect("reads");
    assert_eq!(value, json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "w", "l": "m"}}));
}

#[test]
fn yaml_duplicates_are_told_by_line() {
    let body = "metadata:\n  name: cm\n  labels: {a: b, a: c}\ndata:\n  k: v\n  k: w\nnope: 1\n";
    let error = decode(CONFIG_MAP, body, Format::Yaml, FieldValidation::Strict).expect_err("strict");
    assert_eq!(
        error,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  \
         line 3: key \"a\" already set in map\n  line 6: key \"k\" already set in map, unknown field \"nope\""
    );
    let (_, warnings) = decode(CONFIG_MAP, body, Format::Yaml, FieldValidation::Warn).expect("warns");
    assert_eq!(
        warnings,
        ["line 3: key \"a\" already set in map", "line 6: key \"k\" already set in map", "unknown field \"nope\""]
    );
}

#[test]
fn wrong_bodies_get_upstream_s_words() {
    let unrecognized = |why: &str| format!("the object provided is unrecognized (must be of type ConfigMap): {why}");
    let parse = |why: &str| unrecognized(&format!("couldn't get version/kind; json parse error: {why}"));
    let handled = |why: &str| format!("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: {why}");
    let meta = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let cases = [
        ("", parse("unexpected end of JSON input (<empty>)")),
        ("[]", parse(&format!("json: cannot unmarshal array into Go value of type {meta} (5b5d)"))),
        ("5", parse(&format!("json: cannot unmarshal number into Go value of type {meta} (35)"))),
        (
            r#"{"apiVersion":1,"kind":"ConfigMap"}"#,
            parse(r#"json: cannot unmarshal number into Go struct field .apiVersion of type string ({"apiVersion":1,"kind":"Config ...)"#),
        ),
        (
            r#"{"metadata":{"name":5}}"#,
            handled("json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"),
        ),
        (r#"{"data":{"a":1}}"#, handled("json: cannot unmarshal number into Go struct field ConfigMap.data of type string")),
        (r#"{"binaryData":{"a":"!"}}"#, handled("illegal base64 data at input byte 0")),
        (r#"{"binaryData":{"a":"AAAAAAA"}}"#, handled("illegal base64 data at input byte 4")),
        (
            r#"{"metadata":{"creationTimestamp":5}}"#,
            handled("json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string"),
        ),
        (
            r#"{"metadata":{"creationTimestamp":"now"}}"#,
            handled(r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#),
        ),
        (
            r#"{"apiVersion":"v1","kind":"List"}"#,
            r#"List in version "v1" cannot be handled as a ConfigMap: converting (v1.List) to (core.ConfigMap): unknown conversion"#.into(),
        ),
        (
            r#"{"apiVersion":"example.com/v1","kind":"Widget"}"#,
            r#"Widget in version "v1" cannot be handled as a ConfigMap: no kind "Widget" is registered for version "example.com/v1" in scheme "api""#.into(),
        ),
        (
            r#"{"apiVersion":"v2","kind":"ConfigMap"}"#,
            "the API version in the data (v2) does not match the expected API version (v1)".into(),
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(decode(CONFIG_MAP, body, Format::Json, FieldValidation::Strict), Err(expected), "{body}");
    }
    let container = |fields: &str| format!(r#"{{"spec":{{"containers":[{{{fields}}}]}}}}"#);
    let pod = |why: &str| format!("Pod in version \"v1\" cannot be handled as a Pod: {why}");
    let field = "json: cannot unmarshal";
    let cases = [
        (
            container(r#""ports":{"a":1}"#),
            pod(&format!(
                "{field} object into Go struct field Container.spec.containers.ports of type []v1.ContainerPort"
            )),
        ),
        (
            container(r#""ports":[{"containerPort":1.5}]"#),
            pod(&format!(
                "{field} number 1.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32"
            )),
        ),
        (
            container(r#""resources":{"limits":{"cpu":"x"}}"#),
            pod("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ),
        (r#"{"spec":[]}"#.into(), pod(&format!("{field} array into Go struct field Pod.spec of type v1.PodSpec"))),
    ];
    for (body, expected) in cases {
        assert_eq!(decode(POD, &body, Format::Json, FieldValidation::Strict), Err(expected), "{body}");
    }
}

#[test]
fn scalars_take_their_canonical_form_and_nulls_go() {
    let body = r#"{"metadata":{"name":"p","labels":null,"creationTimestamp":"2024-01-31T10:00:00.5+02:00"},
        "spec":{"nodeName":null,"activeDeadlineSeconds":5,"volumes":[null],"containers":[{"name":"c","image":null,
        "env":null,"resources":{"requests":{"cpu":0.5,"memory":"1024Ki"}},
        "livenessProbe":{"httpGet":{"port":8080},"periodSeconds":3}}]}}"#;
    let (value, warnings) = decode(POD, body, Format::Json, FieldValidation::Strict).expect("reads");
    let expected = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "creationTimestamp": "2024-01-31T08:00:00Z"},
        "spec": {"activeDeadlineSeconds": 5, "volumes": [{}], "containers": [{"name": "c",
            "resources": {"requests": {"cpu": "500m", "memory": "1Mi"}},
            "livenessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 3}}]}});
    assert_eq!((value, warnings), (expected, vec![]));
}

fn widget() -> Schema {
    let kind = GroupVersionKind { group: "example.com".into(), version: "v1".into(), kind: "Widget".into() };
    let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object",
        "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 5},
            "mode": {"type": "string", "default": "Fast", "enum": ["Fast", "Slow"]},
            "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 4},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "limits": {"type": "object", "additionalProperties": {"type": "integer"}},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                "items": {"type": "object", "required": ["id"], "properties": {
                    "id": {"type": "string"}, "n": {"type": "integer", "default": 1}}}}}}}});
    Schema::from_crd(&schema, &kind)
}

#[test]
fn custom_resources_are_pruned_and_defaulted_by_their_schema() {
    let body = br#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","nope":1},"spec":{"size":2,"x":1,"free":{"any":[1.0]},"name":null,
        "parts":[{"id":"a","y":2},{"id":"b","n":3}],"limits":{"a":1}},"other":{}}"#;
    let mut decoded = widget().decode(body, Format::Json, FieldValidation::Warn).expect("reads");
    widget().default(&mut decoded.document);
    let expected = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"},
        "spec": {"size": 2, "mode": "Fast", "free": {"any": [1]}, "limits": {"a": 1},
                 "parts": [{"id": "a", "n": 1}, {"id": "b", "n": 3}]}});
    assert_eq!(decoded.document.value(), &expected);
    let unknown = ["metadata.nope", "other", "spec.parts[0].y", "spec.x"];
    assert_eq!(decoded.warnings, unknown.map(|path| format!("unknown field {path:?}")));
}

#[test]
fn custom_resources_are_checked_by_their_schema() {
    let check = |spec: Value| {
        let document =
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec});
        let document = crate::Document::new(document).expect("an object");
        widget().check(&document, None).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(check(json!({"size": 1, "port": "http", "tags": ["a"], "free": {"x": [null]}})), Vec::<String>::new());
    let cases = [
        (json!({}), "spec.size: Required value"),
        (
            json!({"size": "x"}),
            r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#,
        ),
        (json!({"size": 9}), "spec.size: Invalid value: 9: spec.size in body should be less than or equal to 5"),
        (json!({"size": 1, "mode": "x"}), r#"spec.mode: Unsupported value: "x": supported values: "Fast", "Slow""#),
        (
            json!({"size": 1, "name": "A1"}),
            r#"spec.name: Invalid value: "A1": spec.name in body should match '^[a-z]+$'"#,
        ),
        (
            json!({"size": 1, "name": "a"}),
            r#"spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long"#,
        ),
        (json!({"size": 1, "tags": ["a", "a"]}), r#"spec.tags[1]: Duplicate value: "a""#),
        (json!({"size": 1, "parts": [{"id": "a"}, {"id": "a"}]}), r#"spec.parts[1]: Duplicate value: {"id":"a"}"#),
        (
            json!({"size": 1, "limits": {"a": "x"}}),
            r#"spec.limits.a: Invalid value: "string": spec.limits.a in body must be of type integer: "string""#,
        ),
    ];
    for (spec, error) in cases {
        assert_eq!(check(spec.clone()), [error], "{spec}");
    }
}

proptest::proptest! {
    #[test]
    fn no_body_panics(text in "[\\[\\]{}:,\"'a-c0-9 \\n&*<|>!~.e-]{0,60}") {
        for format in [Format::Json, Format::Yaml] {
            let _ = decode_any(text.as_bytes(), format);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
        for format in [Format::Json, Format::Yaml] {
            let _ = decode_any(&bytes, format);
        }
    }

    /// Valid JSON reads the same as YAML, since JSON is YAML.
    #[test]
    fn json_is_yaml(keys in proptest::collection::btree_map("[a-z]{1,4}", -99i64..99, 0..5), words in "[a-zA-Z ]{0,9}") {
        let body = json!({"data": {"words": words}, "metadata": {"labels": keys}}).to_string();
        let plain = |format| super::plain(body.as_bytes(), format);
        proptest::prop_assert_eq!(plain(Format::Json), plain(Format::Yaml));
    }
}

fn decode_any(bytes: &[u8], format: Format) -> bool {
    Schema::of_kind("", "v1", "Pod").expect("a kind").decode(bytes, format, FieldValidation::Warn).is_ok()
}
