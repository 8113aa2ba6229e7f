//! Schemas that are refused, in upstream's words.

use serde_json::{Value, json};

use super::schema::validate;
use crate::field::Path;

fn faults(spec: Value) -> Vec<String> {
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    validate(&schema, false, &Path::new("s")).iter().map(ToString::to_string).collect()
}

#[test]
fn schemas_must_be_structural() {
    let at = "s.openAPIV3Schema.properties[spec]";
    let cases = [
        (json!({"type": "object"}), vec![]),
        (json!({}), vec![".type: Required value: must not be empty for specified object fields"]),
        (json!({"type": "array"}), vec![".items: Required value: must be specified"]),
        (
            json!({"type": "thing"}),
            vec![
                ".type: Unsupported value: \"thing\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ],
        ),
        (
            json!({"type": "string", "anyOf": [{"type": "string"}]}),
            vec![".anyOf[0].type: Forbidden: must be empty to be structural"],
        ),
        (json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), vec![]),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            vec![
                ".items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must \
                  have a default or be a required property",
            ],
        ),
        (
            json!({"type": "integer", "default": "a"}),
            vec![
                ".default: Invalid value: \"string\": s.openAPIV3Schema.properties[spec].default in body must be of type \
                  integer: \"string\"",
            ],
        ),
        (
            json!({"type": "object", "default": {"a": 1}}),
            vec![".default: Invalid value: {\"a\":1}: must not have unknown fields"],
        ),
        (
            json!({"type": "string", "pattern": "("}),
            vec![
                ".pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error: unclosed group",
            ],
        ),
    ];
    for (spec, want) in cases {
        let want: Vec<String> = want.into_iter().map(|text| format!("{at}{text}")).collect();
        assert_eq!(faults(spec.clone()), want, "{spec}");
    }
}

#[test]
fn what_validations_name_must_be_declared() {
    let schema = json!({"type": "object", "properties": {}, "allOf": [{"properties": {"a": {"minLength": 1}}}]});
    let faults: Vec<String> = validate(&schema, false, &Path::new("s")).iter().map(ToString::to_string).collect();
    let at = "s.openAPIV3Schema";
    let want = format!("{at}.properties[a]: Required value: because it is defined in {at}.allOf[0].properties[a]");
    assert_eq!(faults, [want]);
}

#[test]
fn rules_are_compiled_and_weighed() {
    let rule = |rule: &str| json!([{"rule": rule}]);
    let at = "s.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    let items = |rules: Value, more: Value| {
        let mut spec = json!({"type": "object", "x-kubernetes-validations": rules,
            "properties": {"a": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}}}});
        if let (Some(list), Some(more)) = (spec["properties"]["l"].as_object_mut(), more.as_object()) {
            list.extend(more.clone());
        }
        faults(spec)
    };
    assert_eq!(items(rule("self.a > 1 && self.l.size() < 3"), json!({})), [""; 0]);
    let undefined = items(rule("self.b > 1"), json!({}));
    let want = format!(
        "{at}: Invalid value: {{\"rule\":\"self.b > 1\"}}: compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | \
         self.b > 1\n | ....^"
    );
    assert_eq!(undefined, [want]);
    let wrong = items(rule("self.a"), json!({}));
    assert_eq!(
        wrong,
        [format!("{at}: Invalid value: {{\"rule\":\"self.a\"}}: cel expression must evaluate to a bool")]
    );
    let nested = "self.l.all(x, self.l.all(y, x == y))";
    let costly = items(rule(nested), json!({}));
    assert!(
        costly[0]
            .starts_with(&format!("{at}: Forbidden: estimated rule cost exceeds budget by factor of more than 100x"))
    );
    let bounded = json!({"maxItems": 10, "items": {"type": "string", "maxLength": 10}});
    assert_eq!(items(rule(nested), bounded), [""; 0]);
    let unused = items(json!([{"rule": "self.a > 1", "optionalOldSelf": true}]), json!({}));
    assert!(unused[0].contains("may not be set if oldSelf is not used in rule"), "{unused:?}");
    let list = json!({"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 3,
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    assert!(faults(list)[0].contains("oldSelf cannot be used on the uncorrelatable portion of the schema within"));
}
