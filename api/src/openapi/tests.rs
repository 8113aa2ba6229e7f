//! What kubectl needs of the documents, in the form kube-apiserver v1.37 gives it.

use serde_json::{Value, json};

use super::{Served, ServedSubresource, v2, v3};
use crate::{GroupVersionKind, Schema};

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn subresource(name: &str, group: &str, version: &str, kind: &str, verbs: &str) -> ServedSubresource {
    let own = str::to_owned;
    ServedSubresource {
        name: own(name),
        group: own(group),
        version: own(version),
        kind: own(kind),
        verbs: words(verbs),
    }
}

fn deployments() -> Served {
    Served {
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        plural: "deployments".into(),
        namespaced: true,
        verbs: words("create delete deletecollection get list patch update watch"),
        subresources: vec![subresource("scale", "autoscaling", "v1", "Scale", "get patch update")],
        selectable: Vec::new(),
        schema: Schema::of_kind("apps", "v1", "Deployment").expect("a kind"),
    }
}

fn widgets() -> Served {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "mode": {"type": "string", "default": "Fast", "nullable": true}}}}});
    let kind = GroupVersionKind { group: "shop.example.com".into(), version: "v1".into(), kind: "Widget".into() };
    Served {
        group: kind.group.clone(),
        version: "v1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
        schema: Schema::from_crd(&schema, &kind),
        subresources: vec![subresource("status", "", "", "Widget", "get patch update")],
        selectable: words("spec.mode"),
        ..deployments()
    }
}

#[test]
fn every_reference_is_answered() {
    let document = v3(&[deployments()]);
    let mut names = Vec::new();
    super::references(&document, &mut names);
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    assert!(names.iter().all(|name| schemas.contains_key(name)));
    assert!(
        schemas.contains_key("io.k8s.api.core.v1.PodSpec") && schemas.contains_key("io.k8s.api.autoscaling.v1.Scale")
    );
}

#[test]
fn fields_carry_patch_and_list_metadata() {
    let document = v3(&[deployments()]);
    let field = |of: &str, name: &str| {
        document["components"]["schemas"][format!("io.k8s.api.{of}")]["properties"][name].clone()
    };
    assert_eq!(
        field("core.v1.PodSpec", "containers"),
        json!({"type": "array", "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"},
               "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
               "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"})
    );
    let protocol = json!({"type": "string", "default": "TCP", "enum": ["SCTP", "TCP", "UDP"]});
    assert_eq!(field("core.v1.ContainerPort", "protocol"), protocol);
    let strategy = "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy";
    let strategy = json!({"default": {}, "allOf": [{"$ref": strategy}], "x-kubernetes-patch-strategy": "retainKeys"});
    assert_eq!(field("apps.v1.DeploymentSpec", "strategy"), strategy);
    let kind = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"];
    assert_eq!(kind, &json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]));
}

#[test]
fn paths_tell_verbs_kinds_and_parameters() {
    let document = v3(&[deployments()]);
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names = |of: &Value| -> Vec<String> {
        of.as_array().into_iter().flatten().filter_map(|p| p["name"].as_str()).map(str::to_owned).collect()
    };
    assert_eq!(names(&patch["parameters"]), words("dryRun fieldManager fieldValidation force"));
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
    assert_eq!(scale["get"]["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert_eq!(names(&scale["parameters"]), words("name namespace pretty"));
}

#[test]
fn custom_resources_are_published_as_they_are_written() {
    let document = v3(&[widgets()]);
    let widget = &document["components"]["schemas"]["com.example.shop.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["properties"]["mode"]["default"], "Fast");
    assert!(widget["properties"]["metadata"]["allOf"].is_array());
    let meta = &document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"];
    let described =
        [&widget["properties"]["apiVersion"], &widget["properties"]["metadata"], &meta["creationTimestamp"]];
    let begins = ["APIVersion defines", "Standard object's metadata", "CreationTimestamp is a timestamp"];
    for (of, begin) in described.into_iter().zip(begins) {
        assert!(of["description"].as_str().is_some_and(|text| text.starts_with(begin)), "{of}");
    }
    assert_eq!(widget["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.mode"}]));
    assert!(document["components"]["schemas"]["com.example.shop.v1.WidgetList"].is_object());
    let patch = &document["paths"]["/apis/shop.example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    let media_types: Vec<&String> = patch["requestBody"]["content"].as_object().expect("content").keys().collect();
    assert_eq!(
        media_types,
        ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]
    );
}

#[test]
fn version_two_says_what_it_can() {
    let document = v2(&[deployments(), widgets()]);
    let spec = &document["definitions"]["com.example.shop.v1.Widget"]["properties"]["spec"]["properties"];
    assert_eq!(spec, &json!({"free": {"x-kubernetes-preserve-unknown-fields": true}, "mode": {"type": "string"}}));
    let strategy = &document["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    let name = "#/definitions/io.k8s.api.apps.v1.DeploymentStrategy";
    assert_eq!(strategy, &json!({"$ref": name, "x-kubernetes-patch-strategy": "retainKeys"}));
    let surge = &document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(surge, &json!({"type": "string", "format": "int-or-string"}));
    let post = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["post"];
    assert_eq!(post["parameters"][0]["schema"]["$ref"], "#/definitions/io.k8s.api.apps.v1.Deployment");
}
