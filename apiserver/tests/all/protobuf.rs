//! Protobuf over HTTP: watch frames, tables and metadata alone, and one encoding of an event for all who watch.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use store::memory::Memory;

use super::every_kind::{typed, whole};
use super::{MAPS, ask, server};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The next frame of a watch: four bytes of length, then a WatchEvent.
async fn frame(body: &mut Incoming, rest: &mut Vec<u8>) -> Vec<u8> {
    loop {
        if let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize)
            && rest.len() >= 4 + length
        {
            return rest.drain(..4 + length).skip(4).collect();
        }
        let next = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.expect("in time");
        rest.extend(next.expect("a frame").expect("no error").into_data().expect("data"));
    }
}

/// Fields of length-delimited type, by number.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let varint = |bytes: &mut &[u8]| {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        match tag & 7 {
            0 => drop(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                found.push((tag >> 3, &bytes[..length]));
                bytes = &bytes[length..];
            }
            kind => panic!("wire type {kind}"),
        }
    }
    found
}

fn field(bytes: &[u8], number: u64) -> &[u8] {
    fields(bytes).into_iter().find(|(found, _)| *found == number).map(|(_, bytes)| bytes).unwrap_or_default()
}

/// `apiVersion kind` of an object behind its magic, and the object.
fn unknown(bytes: &[u8]) -> (String, &[u8]) {
    let bytes = bytes.strip_prefix(b"k8s\0").expect("magic");
    let meta = field(bytes, 1);
    let text = |number| String::from_utf8_lossy(field(meta, number)).into_owned();
    (format!("{} {}", text(1), text(2)), field(bytes, 2))
}

#[tokio::test]
async fn watches_tables_and_metadata() {
    let server = server(Memory::new()).await;
    let (_, list) = ask(&server, Method::GET, MAPS, None).await;
    let from = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let watch = format!("{MAPS}?watch=1&resourceVersion={from}&allowWatchBookmarks=true");
    let forms = [
        ("v1 ConfigMap", format!("{PROTOBUF};stream=watch")),
        ("meta.k8s.io/v1 PartialObjectMetadata", format!("{PROTOBUF};as=PartialObjectMetadata;v=v1;g=meta.k8s.io")),
    ];
    let mut watches = Vec::new();
    for (kind, accept) in forms {
        let answer = typed(&server, Method::GET, &watch, ["", &accept], "").await;
        assert_eq!(answer.status(), 200, "{accept}");
        let media = answer.headers()["content-type"].to_str().expect("a text").to_owned();
        assert!(media.starts_with(PROTOBUF) && media.ends_with("stream=watch"), "{media}");
        watches.push((kind, answer.into_body(), Vec::new()));
    }
    ask(
        &server,
        Method::POST,
        MAPS,
        Some(json!({"metadata": {"name": "c", "labels": {"x": "1"}}, "data": {"k": "v"}})),
    )
    .await;
    ask(&server, Method::PATCH, &format!("{MAPS}/c"), Some(json!({"data": {"k": "w"}}))).await;
    let (_, gone) = ask(&server, Method::DELETE, &format!("{MAPS}/c"), None).await;
    assert_eq!(gone["status"], "Success");
    for (kind, body, rest) in &mut watches {
        for wanted in ["ADDED", "MODIFIED", "DELETED"] {
            let event = frame(body, rest).await;
            assert_eq!(String::from_utf8_lossy(field(&event, 1)), wanted);
            // A RawExtension around the object.
            let (found, object) = unknown(field(field(&event, 2), 1));
            assert_eq!(&found, kind);
            assert_eq!(field(field(object, 1), 1), b"c", "its metadata's name");
            let data = fields(object).iter().any(|(number, _)| *number == 2);
            assert_eq!(data, *kind == "v1 ConfigMap", "metadata alone has no data");
        }
    }

    ask(&server, Method::POST, MAPS, Some(json!({"metadata": {"name": "c"}}))).await;
    let accept = format!("{PROTOBUF};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let (code, bytes) = whole(&server, Method::GET, MAPS, ["", &accept], "").await;
    assert_eq!((code, unknown(&bytes).0.as_str()), (200, "meta.k8s.io/v1 PartialObjectMetadataList"));
    let (code, bytes) = whole(&server, Method::GET, MAPS, ["", PROTOBUF], "").await;
    assert_eq!((code, unknown(&bytes).0.as_str()), (200, "v1 ConfigMapList"));
    // Of tables there is no protobuf: the next best is taken.
    let table = "as=Table;v=v1;g=meta.k8s.io";
    let accept = format!("{PROTOBUF};{table},application/json;{table},application/json");
    let (code, bytes) = whole(&server, Method::GET, MAPS, ["", &accept], "").await;
    let table: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!((code, &table["kind"], &table["rows"][0]["cells"][0]), (200, &json!("Table"), &json!("c")));
    // A body that is cut short.
    let (_, bytes) = whole(&server, Method::GET, &format!("{MAPS}/c"), ["", PROTOBUF], "").await;
    let (code, _) =
        whole(&server, Method::PUT, &format!("{MAPS}/c"), [PROTOBUF, PROTOBUF], bytes.slice(..bytes.len() - 1)).await;
    assert_eq!(code, 400);
}
