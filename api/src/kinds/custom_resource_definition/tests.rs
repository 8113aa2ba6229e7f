//! Schemas that are refused, in upstream's words.

use serde_json::{Value, json};

use super::CustomResourceDefinition;
use super::schema::validate;
use crate::field::Path;
use crate::kinds::{Change, Operation, Rules};
use crate::{Document, Timestamp};

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

fn definition() -> Document {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "n": {"type": "integer"}, "o": {"type": "object"}}}}}});
    let version =
        |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema});
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    let service = json!({"namespace": "n", "name": "s", "port": 443});
    let webhook = json!({"conversionReviewVersions": ["v1"], "clientConfig": {"service": service}});
    Document::new(json!({"metadata": {"name": "things.x.io"}, "spec": {
        "group": "x.io", "scope": "Namespaced", "names": names, "versions": [version("v1", true), version("v2", false)],
        "conversion": {"strategy": "Webhook", "webhook": webhook}},
        "status": {"storedVersions": ["v1"]}}))
    .expect("an object")
}

fn said(new: &Document, old: Option<&Document>) -> Vec<String> {
    let operation = if old.is_some() { Operation::Update } else { Operation::Create };
    let change = Change { operation, subresource: "", old, user: "u", now: Timestamp::UNIX_EPOCH, version: "v1" };
    CustomResourceDefinition.validate(new, &change).iter().map(ToString::to_string).collect()
}

/// What is said of a definition that differs in one place.
fn wrong(pointer: &str, value: Value, old: Option<&Document>) -> Vec<String> {
    let mut new = definition();
    new.set(pointer, value);
    said(&new, old)
}

#[test]
fn conversions_are_checked_in_upstreams_words() {
    let at = "spec.conversion";
    let config = "/spec/conversion/webhook/clientConfig";
    let cases = [
        ("/spec/conversion/strategy", json!("Webhook"), None),
        (
            "/spec/conversion/strategy",
            json!("Magic"),
            Some(".strategy: Unsupported value: \"Magic\": supported values: \"None\", \"Webhook\""),
        ),
        (
            "/spec/conversion/strategy",
            json!("None"),
            Some(".webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook"),
        ),
        (config, Value::Null, Some(".webhookClientConfig: Required value: required when strategy is set to Webhook")),
        (config, json!({}), Some(".webhookClientConfig: Required value: exactly one of url or service is required")),
        (
            config,
            json!({"url": "http://h"}),
            Some(
                ".webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: \
                 https://host[/path]",
            ),
        ),
        (config, json!({"url": "https://h", "caBundle": "bm8="}), None),
        (
            "/spec/conversion/webhook/conversionReviewVersions",
            json!([]),
            Some(".conversionReviewVersions: Required value"),
        ),
        (
            "/spec/conversion/webhook/conversionReviewVersions",
            json!(["v9"]),
            Some(".conversionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1"),
        ),
        (
            "/spec/conversion/webhook/conversionReviewVersions",
            json!(["v1", "v1"]),
            Some(".conversionReviewVersions[1]: Invalid value: \"v1\": duplicate version"),
        ),
    ];
    for (pointer, value, want) in cases {
        let got = wrong(pointer, value.clone(), None);
        let want = want.map(|text| format!("{at}{text}"));
        assert_eq!(got.first(), want.as_ref(), "{pointer} {value}");
    }
    let mut old = definition();
    old.set("/status/conditions", json!([{"type": "Established", "status": "True"}]));
    let config = |pem: &str| json!({"url": "https://h", "caBundle": pem});
    let place = "/spec/conversion/webhook/clientConfig";
    let want = "spec.conversion.webhookClientConfig.caBundle: Invalid value: \"bm8=\": unable to load root certificates: \
                unable to parse bytes as PEM block";
    assert_eq!(wrong(place, config("bm8="), Some(&old)), [want], "it is established by now");
    old.set(place, config("bm8="));
    assert_eq!(wrong(place, config("bm8="), Some(&old)), [""; 0], "it was so before");
}

#[test]
fn versions_are_checked_in_upstreams_words() {
    let selectable = |path: &str| json!([{"jsonPath": path}]);
    let fields = "spec.versions[0].selectableFields[0].jsonPath: Invalid value";
    let cases = [
        ("selectableFields", selectable(".spec.n"), None),
        (
            "selectableFields",
            selectable(".spec.o"),
            Some(format!(
                "{fields}: \".spec.o\": must point to a field of type string, boolean or integer. Enum string fields and \
                 strings with formats are allowed."
            )),
        ),
        (
            "selectableFields",
            selectable(".spec.x"),
            Some(format!("{fields}: \".spec.x\": is an invalid path: does not refer to a valid field")),
        ),
        (
            "selectableFields",
            selectable("spec.n"),
            Some(format!("{fields}: \"spec.n\": is an invalid path: expected [ or . but got: spec")),
        ),
        (
            "deprecationWarning",
            json!("gone"),
            Some(
                "spec.versions[0].deprecationWarning: Invalid value: \"gone\": can only be set for deprecated versions"
                    .into(),
            ),
        ),
        (
            "additionalPrinterColumns",
            json!([{"name": "N", "type": "integer", "jsonPath": "spec.n"}]),
            Some(
                "spec.versions[0].additionalPrinterColumns[0].JSONPath: Invalid value: \"spec.n\": must be a simple json path \
                 starting with ."
                    .into(),
            ),
        ),
        (
            "subresources",
            json!({"scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n", "labelSelectorPath": ".x"}}),
            Some(
                "spec.versions[0].subresources.scale.labelSelectorPath: Invalid value: \".x\": should be a json path under \
                 either .spec or .status"
                    .into(),
            ),
        ),
    ];
    for (field, value, want) in cases {
        let mut new = definition();
        new.at_mut("/spec/versions/0").expect("a version")[field] = value.clone();
        let got = said(&new, None);
        assert_eq!(got, want.into_iter().collect::<Vec<_>>(), "{field} {value}");
    }
}

#[test]
fn a_version_that_objects_are_stored_in_stays() {
    let got = wrong("/status/storedVersions", json!(["v0", "v1"]), None);
    let want = "status.storedVersions[0]: Invalid value: \"v0\": missing from spec.versions; v0 was previously a storage \
                version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 \
                and removes v0 from status.storedVersions";
    assert_eq!(got, [want]);
}

#[test]
fn a_group_of_the_community_needs_its_approval() {
    let mut new = definition();
    new.set("/spec/group", "x.k8s.io");
    new.set("/metadata/name", "things.x.k8s.io");
    let want = "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval \
                annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
    assert_eq!(said(&new, None), [want]);
    assert_eq!(said(&new, Some(&new)), [""; 0], "it lacked it before");
    new.set("/metadata/annotations", json!({"api-approved.kubernetes.io": "unapproved, an experiment"}));
    assert_eq!(said(&new, None), [""; 0]);
}
