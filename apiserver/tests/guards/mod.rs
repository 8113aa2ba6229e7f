//! What stands between two clients that want the same thing.

use http::Method;
use serde_json::json;
use store::memory::Memory;

use crate::{MAPS, ask, line, send, server};

const PODS: &str = "/api/v1/namespaces/a/pods";

fn pod(name: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = server(Memory::new()).await;
    let (code, made) = ask(&server, Method::POST, PODS, Some(pod("p"))).await;
    assert_eq!(code, 201, "{made}");
    let bind = |node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    let path = format!("{PODS}/p/binding");
    let (code, answer) = ask(&server, Method::POST, &path, Some(bind("one"))).await;
    assert_eq!(code, 201, "{answer}");
    let (code, answer) = ask(&server, Method::POST, &path, Some(bind("two"))).await;
    assert_eq!((code, &answer["reason"]), (409, &json!("Conflict")), "{answer}");
    let (_, pod) = ask(&server, Method::GET, &format!("{PODS}/p"), None).await;
    assert_eq!(pod["spec"]["nodeName"], "one");
}

#[tokio::test]
async fn an_eviction_takes_from_the_budget_and_none_goes_below_it() {
    let server = server(Memory::new()).await;
    let budgets = "/apis/policy/v1/namespaces/a/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    let (code, made) = ask(&server, Method::POST, budgets, Some(budget)).await;
    assert_eq!(code, 201, "{made}");
    let allowed =
        json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    ask(&server, Method::PATCH, &format!("{budgets}/b/status"), Some(allowed)).await;
    let mut codes = Vec::new();
    for name in ["p", "q"] {
        ask(&server, Method::POST, PODS, Some(pod(name))).await;
        ask(&server, Method::PATCH, &format!("{PODS}/{name}/status"), Some(json!({"status": {"phase": "Running"}})))
            .await;
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        codes.push(ask(&server, Method::POST, &format!("{PODS}/{name}/eviction"), Some(eviction)).await.0);
    }
    assert_eq!(codes, [201, 429]);
    let (_, budget) = ask(&server, Method::GET, &format!("{budgets}/b"), None).await;
    assert_eq!(budget["status"]["disruptionsAllowed"], 0, "{budget}");
}

#[tokio::test]
async fn a_bookmark_promises_no_more_than_was_told() {
    let server = server(Memory::new()).await;
    let (_, made) = ask(&server, Method::POST, MAPS, Some(json!({"metadata": {"name": "c"}}))).await;
    let path =
        format!("{MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan");
    let mut watch = send(&server, "system:masters", Method::GET, &path, None).await.into_body();
    // Both events may come in one frame.
    let first = text(&mut watch).await;
    let all = if first.contains("BOOKMARK") { first } else { first + &text(&mut watch).await };
    let mark: serde_json::Value = serde_json::from_str(all.lines().last().unwrap_or_default()).expect("an event");
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (_, next) = ask(&server, Method::POST, MAPS, Some(json!({"metadata": {"name": "d"}}))).await;
    let told = line(&mut watch).await;
    assert_eq!(told["object"]["metadata"]["resourceVersion"], next["metadata"]["resourceVersion"]);
}

async fn text(body: &mut hyper::body::Incoming) -> String {
    use http_body_util::BodyExt;
    let frame = tokio::time::timeout(std::time::Duration::from_secs(5), body.frame()).await.expect("in time");
    let bytes = frame.expect("a frame").expect("no error").into_data().expect("data");
    String::from_utf8_lossy(&bytes).into_owned()
}
