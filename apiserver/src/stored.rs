//! Built-in objects as kube-apiserver stores them: in protobuf, and definitions of custom resources in their first
//! version (`apiextensions.k8s.io/v1beta1`, which nobody serves any more).

use api::kinds::Rules;
use api::{Document, GroupVersion, Schema};
use serde_json::{Map, Value, json};

use crate::canonical::omit_empty;
use crate::protobuf;

/// How the first version of definitions begins, as Go writes it.
const FIRST: &[u8] = br#"{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1""#;
/// What stood once for all versions there, and what it is called in each of them now.
const FOR_ALL: [(&str, &str); 4] = [
    ("validation", "schema"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// The object as we would store it, where that is not what is stored.
pub(crate) fn read(stored: &[u8], rules: &dyn Rules) -> Option<Document> {
    if stored.starts_with(protobuf::PREFIX) {
        let mut document = Document::new(protobuf::object(stored).ok()?)?;
        let version = GroupVersion::parse(document.api_version())?;
        let schema = Schema::of_kind(&version.group, &version.version, document.kind())?;
        omit_empty(&schema, &mut document);
        schema.default(&mut document);
        rules.default(&mut document);
        return Some(document);
    }
    let mut document = stored.starts_with(FIRST).then(|| Document::parse(stored).ok()).flatten()?;
    document.set("/apiVersion", "apiextensions.k8s.io/v1");
    if let Some(spec) = document.at_mut("/spec").and_then(Value::as_object_mut) {
        definition(spec);
    }
    Some(document)
}

/// The spec of a definition, from the first version to `v1`
/// (`k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/conversion.go`).
fn definition(spec: &mut Map<String, Value>) {
    let name = spec.remove("version");
    let mut versions = match spec.remove("versions") {
        Some(Value::Array(versions)) => versions,
        _ => name.map(|name| json!({"name": name, "served": true, "storage": true})).into_iter().collect(),
    };
    for (once, now) in FOR_ALL {
        let value = spec.remove(once);
        for version in versions.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(value) = &value {
                version.entry(now).or_insert_with(|| value.clone());
            }
        }
    }
    let columns = versions.iter_mut().filter_map(|version| version.get_mut("additionalPrinterColumns")?.as_array_mut());
    for column in columns.flatten().filter_map(Value::as_object_mut) {
        if let Some(path) = column.remove("JSONPath") {
            column.insert("jsonPath".to_owned(), path);
        }
    }
    spec.insert("versions".to_owned(), Value::Array(versions));
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        spec.remove("preserveUnknownFields");
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        let parts = [("clientConfig", "webhookClientConfig"), ("conversionReviewVersions", "conversionReviewVersions")];
        let webhook: Map<String, Value> =
            parts.iter().filter_map(|(now, once)| Some(((*now).to_owned(), conversion.remove(*once)?))).collect();
        if conversion.get("strategy").is_some_and(|strategy| strategy == "Webhook") {
            conversion.insert("webhook".to_owned(), Value::Object(webhook));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::read;
    use api::kinds::Plain;
    use serde_json::{Value, json};

    #[test]
    fn the_first_version_of_a_definition_is_read_as_v1() {
        let stored = r#"{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1",
            "metadata":{"name":"things.example.com"},
            "spec":{"group":"example.com","version":"v1","scope":"Namespaced","preserveUnknownFields":false,
                "versions":[{"name":"v1","served":true,"storage":true},
                    {"name":"v2","served":true,"storage":false,"schema":{"openAPIV3Schema":{"type":"object","title":"own"}}}],
                "validation":{"openAPIV3Schema":{"type":"object"}},"subresources":{"status":{}},
                "additionalPrinterColumns":[{"name":"Size","type":"integer","JSONPath":".spec.size"}],
                "conversion":{"strategy":"Webhook","webhookClientConfig":{"url":"https://a"},
                    "conversionReviewVersions":["v1"]}},
            "status":{"storedVersions":["v1"]}}"#;
        let columns = json!([{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]);
        let version = |name: &str, storage: bool, schema: Value| {
            json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}}, "additionalPrinterColumns": columns})
        };
        let webhook = json!({"clientConfig": {"url": "https://a"}, "conversionReviewVersions": ["v1"]});
        let want = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"name": "things.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced",
                "versions": [version("v1", true, json!({"type": "object"})),
                    version("v2", false, json!({"type": "object", "title": "own"}))],
                "conversion": {"strategy": "Webhook", "webhook": webhook}},
            "status": {"storedVersions": ["v1"]}});
        assert_eq!(read(stored.replace(['\n'], "").as_bytes(), &Plain).expect("read").value(), &want);
        assert!(read(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{}}"#, &Plain).is_none());
    }

    #[test]
    fn protobuf_is_read_as_json() {
        let meta = [10, 2, b'v', b'1', 18, 9].into_iter().chain(*b"ConfigMap");
        // metadata { name "a" }, data { "k": "v" }
        let raw = [10, 3, 10, 1, b'a', 18, 6, 10, 1, b'k', 18, 1, b'v'];
        let meta: Vec<u8> = meta.collect();
        let body = [b"k8s\0", &[10, meta.len() as u8][..], &meta, &[18, raw.len() as u8], &raw].concat();
        let want = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"}});
        assert_eq!(read(&body, &Plain).expect("read").value(), &want);
    }
}
