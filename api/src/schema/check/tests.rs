//! What is wrong with values is told as upstream tells it.

use serde_json::{Value, json};

use crate::name::GroupVersion;
use crate::{Document, Schema};

fn check(spec: Value, old: Option<Value>) -> Vec<String> {
    let properties = json!({
        "n": {"type": "integer", "format": "int32", "maximum": 10, "multipleOf": 2},
        "e": {"type": "object", "oneOf": [{"required": ["x"]}, {"required": ["y"]}]},
        "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"x-kubernetes-int-or-string": true}}}},
        "r": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    });
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}});
    let kind = GroupVersion { group: "x.io".into(), version: "v1".into() }.kind("Thing");
    let schema = Schema::from_crd(&schema, &kind);
    let object = |spec: Value| {
        Document::new(json!({"apiVersion": "x.io/v1", "kind": "Thing", "spec": spec})).unwrap_or_default()
    };
    let old = old.map(object);
    schema.check(&object(spec), old.as_ref()).iter().map(ToString::to_string).collect()
}

#[test]
fn all_that_is_wrong_with_a_value_is_told() {
    let cases = [
        (json!({"n": 4.0}), vec![]),
        (
            json!({"n": 3_000_000_000_u64}),
            vec![
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.n",
                "spec.n: Invalid value: 3000000000: spec.n in body should be less than or equal to 10",
            ],
        ),
        (
            json!({"n": 4.5}),
            vec![
                "spec.n: Invalid value: \"number\": spec.n in body must be of type integer: \"number\"",
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.n",
                "spec.n: Invalid value: 4.5: spec.n in body should be a multiple of 2",
            ],
        ),
        (
            json!({"e": {}}),
            vec![
                "<nil>: Invalid value: \"\": \"spec.e\" must validate one and only one schema (oneOf). Found none valid",
                "spec.e.x: Required value",
            ],
        ),
        (
            json!({"e": {"x": 1, "y": 1}}),
            vec![
                "<nil>: Invalid value: \"\": \"spec.e\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        ),
        (
            json!({"m": [{"k": "a", "v": true}]}),
            vec![
                "spec.m[0].v: Invalid value: \"boolean\": spec.m[0].v in body must be of type integer,string: \"boolean\"",
            ],
        ),
        (json!({"s": ["a", "a"]}), vec!["spec.s[1]: Duplicate value: \"a\""]),
        (json!({"r": {"kind": "K"}}), vec!["spec.r.apiVersion: Required value"]),
        (
            json!({"r": {"kind": "K", "apiVersion": "a/b/c"}}),
            vec!["spec.r.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
        ),
    ];
    for (spec, want) in cases {
        assert_eq!(check(spec.clone(), None), want, "{spec}");
    }
}

#[test]
fn what_was_wrong_before_may_stay() {
    let old = json!({"n": 20, "m": [{"k": "a", "v": true}], "s": ["a", "a"]});
    assert_eq!(check(old.clone(), Some(old.clone())), Vec::<String>::new());
    let mut new = old.clone();
    new["m"] = json!([{"k": "b", "v": 1}, {"k": "a", "v": true}]);
    assert_eq!(check(new.clone(), Some(old.clone())), Vec::<String>::new(), "an item is known by its key");
    new["n"] = json!(22);
    let want = ["spec.n: Invalid value: 22: spec.n in body should be less than or equal to 10"];
    assert_eq!(check(new, Some(old)), want);
}
