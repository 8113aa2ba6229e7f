//! What volumes hold.

use node_plan::env::Sources;
use node_plan::fields::Downward;
use node_plan::volumes::{Content, content, needs, tokens};
use serde_json::{Value, json};

use crate::pod;

fn of(volume: Value, sources: &Sources) -> Result<Vec<(String, String, u32)>, String> {
    let mut pod =
        pod(json!({"volumes": [volume], "containers": [{"name": "c", "resources": {"limits": {"cpu": "250m"}}}]}));
    pod.metadata.annotations = Some([("k".to_string(), "a\"b\n".to_string())].into());
    let volume = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0].clone();
    match content(&pod, &volume, sources, &Downward::default())? {
        Content::Files { files, .. } => {
            Ok(files.into_iter().map(|(path, f)| (path, String::from_utf8(f.data).unwrap(), f.mode)).collect())
        }
        other => Err(format!("{other:?}")),
    }
}

fn sources() -> Sources {
    let mut sources = Sources::default();
    sources.config_maps.insert("cm".into(), serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap());
    sources.tokens.insert(("v".into(), "token".into()), "T".into());
    sources
}

#[test]
fn files_by_key_and_by_item() {
    let file = |p: &str, d: &str, m| (p.to_owned(), d.to_owned(), m);
    let all = of(json!({"name": "v", "configMap": {"name": "cm", "defaultMode": 0o600}}), &sources());
    assert_eq!(all, Ok(vec![file("a", "1", 0o600), file("b", "2", 0o600)]));
    let some = json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "b", "path": "x/y", "mode": 0o400}]}});
    assert_eq!(of(some, &sources()), Ok(vec![file("x/y", "2", 0o400)]));
    let projected = json!({"name": "v", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}},
        {"downwardAPI": {"items": [
            {"path": "ann", "fieldRef": {"fieldPath": "metadata.annotations"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}},
        ]}},
    ]}});
    let expected = vec![file("ann", "k=\"a\\\"b\\n\"", 0o644), file("cpu", "250", 0o644), file("token", "T", 0o644)];
    assert_eq!(of(projected, &sources()), Ok(expected));
}

#[test]
fn what_is_missing_is_named_unless_optional() {
    let missing = of(json!({"name": "v", "configMap": {"name": "no"}}), &sources());
    assert_eq!(missing, Err("MountVolume.SetUp failed for volume \"v\" : configmap \"no\" not found".into()));
    assert_eq!(of(json!({"name": "v", "secret": {"secretName": "no", "optional": true}}), &sources()), Ok(vec![]));
}

#[test]
fn needs_and_tokens_of_a_pod() {
    let pod = pod(json!({
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "s", "secret": {"secretName": "s1"}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": "c2"}}, {"serviceAccountToken": {"path": "t", "audience": "a"}}]}},
        ],
        "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "c1"}}]}],
    }));
    let needs = needs(&pod);
    assert_eq!((needs.config_maps.join(","), needs.secrets.join(",")), ("c1,c2".into(), "pull,s1".into()));
    let wishes: Vec<_> =
        tokens(&pod).into_iter().map(|t| (t.volume, t.path, t.audience, t.expiration_seconds)).collect();
    assert_eq!(wishes, [("p".into(), "t".into(), "a".into(), 3600)]);
}
