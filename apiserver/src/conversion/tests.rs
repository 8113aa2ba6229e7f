//! Answers of conversion webhooks that are taken, and those that are refused in upstream's words.

use std::sync::Arc;

use api::Document;
use serde_json::{Value, json};

use super::{Converter, Question, read, review};
use crate::hooks::{Place, Target};

fn converter(review: Option<&'static str>) -> Arc<Converter> {
    let target = Target { place: Place::Nowhere, ca_bundle: Vec::new() };
    Arc::new(Converter { definition: "things.x.io".into(), target, review })
}

fn thing(name: &str) -> Value {
    json!({"apiVersion": "x.io/v1", "kind": "Thing",
        "metadata": {"name": name, "namespace": "a", "uid": "u", "labels": {"l": "1"}, "finalizers": ["x/f"]}})
}

fn question(names: &[&str]) -> Question {
    let objects = names.iter().map(|name| Document::new(thing(name)).expect("an object")).collect();
    Question { converter: converter(Some("v1")), wanted: "x.io/v2".into(), objects }
}

/// As a webhook answers that only knows the version.
fn converted(name: &str) -> Value {
    let mut object = thing(name);
    object["apiVersion"] = "x.io/v2".into();
    object
}

fn answer(objects: Value) -> Value {
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
        "response": {"uid": "7", "result": {"status": "Success"}, "convertedObjects": objects}})
}

fn set(mut value: Value, pointer: &str, to: Value) -> Value {
    *value.pointer_mut(pointer).expect("a place") = to;
    value
}

#[test]
fn only_labels_and_annotations_of_metadata_may_change() {
    let mut changed = converted("t");
    changed["metadata"] = json!({"name": "t", "namespace": "a", "uid": "u", "annotations": {"a": "b"},
        "finalizers": [], "generation": 9});
    changed["spec"] = json!({"n": 1});
    let read = read(&question(&["t"]), "7", Ok(answer(json!([changed])))).expect("an answer");
    let metadata = json!({"name": "t", "namespace": "a", "uid": "u", "annotations": {"a": "b"}, "finalizers": ["x/f"]});
    assert_eq!(
        read[0].value(),
        &json!({"apiVersion": "x.io/v2", "kind": "Thing", "metadata": metadata, "spec": {"n": 1}})
    );
}

#[test]
fn wrong_answers_are_refused_in_upstreams_words() {
    let good = || answer(json!([converted("t")]));
    let with = |pointer: &str, to: Value| answer(json!([set(converted("t"), pointer, to)]));
    let cases = [
        (set(good(), "/response/uid", json!("8")), r#"failed: expected response.uid="7", got "8""#),
        (set(good(), "/response", Value::Null), "failed: no response provided"),
        (
            set(good(), "/apiVersion", json!("apiextensions.k8s.io/v1beta1")),
            "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got \
             apiextensions.k8s.io/v1beta1, Kind=ConversionReview",
        ),
        (set(good(), "/response/result", json!({"status": "Failure", "message": "no"})), "failed: no"),
        (set(good(), "/response/result", json!({})), "failed: response.result.status was '', not 'Success'"),
        (answer(json!([])), "returned 0 objects, expected 1"),
        (
            with("/apiVersion", json!("x.io/v3")),
            "returned invalid object at index 0: invalid groupVersion (expected x.io/v2, received x.io/v3)",
        ),
        (
            with("/kind", json!("Thong")),
            "returned invalid object at index 0: invalid kind (expected Thing, received Thong)",
        ),
        (with("/metadata/name", json!("s")), "returned invalid object: must have the same name: t != s"),
        (with("/metadata/uid", json!("v")), "returned invalid object: must have the same UID: u != v"),
        (
            with("/metadata/labels", json!({"l": 1})),
            "returned invalid metadata: metadata.labels[l] must be a string, but is int64 in converted object",
        ),
        (
            with("/metadata/labels", json!([])),
            "returned invalid metadata: invalid metadata.labels of type []interface {} in converted object",
        ),
        (
            with("/metadata/labels", json!({"l": "-"})),
            "returned invalid metadata: metadata.labels: Invalid value: \"-\": a valid label must be an empty string or \
             consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
             (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
    ];
    for (answer, want) in cases {
        let got = read(&question(&["t"]), "7", Ok(answer)).expect_err(want);
        assert_eq!(got, format!("conversion webhook for x.io/v1, Kind=Thing {want}"));
    }
    let none = read(&question(&["t"]), "7", Ok(answer(json!([{}])))).expect_err("no kind");
    assert_eq!(none, "Object 'Kind' is missing in '{}'");
    let failed = read(&question(&["t"]), "7", Err("Post \"x\": EOF".into())).expect_err("no answer");
    assert_eq!(failed, "conversion webhook for x.io/v1, Kind=Thing failed: Post \"x\": EOF");
}

#[test]
fn of_several_the_wrong_one_is_named() {
    let objects = json!([converted("t"), set(converted("s"), "/metadata/namespace", json!("b"))]);
    let got = read(&question(&["t", "s"]), "7", Ok(answer(objects))).expect_err("a fault");
    let want = "conversion webhook for x.io/v1, Kind=Thing returned invalid converted object at index 1: must have the \
                same namespace: a != b";
    assert_eq!(got, want);
}

#[test]
fn a_review_has_the_version_that_the_webhook_takes() {
    let mut question = question(&["t"]);
    let sent = review(&question, "7").expect("a review");
    assert_eq!(
        sent,
        json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "request": {"uid": "7", "desiredAPIVersion": "x.io/v2", "objects": [thing("t")]}})
    );
    question.converter = converter(Some("v1beta1"));
    assert_eq!(review(&question, "7").expect("a review")["apiVersion"], "apiextensions.k8s.io/v1beta1");
    let loose = set(answer(json!([converted("t")])), "/response/uid", json!(""));
    assert!(read(&question, "7", Ok(loose)).is_ok(), "the old form is not held to its uid");
    question.converter = converter(None);
    assert_eq!(review(&question, "7").expect_err("none"), "no supported conversion review versions");
}
