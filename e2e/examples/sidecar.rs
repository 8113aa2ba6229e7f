//! A mutating webhook, `sidecar CERTIFICATE KEY ADDRESS`: every pod that it is asked about gets a container that runs
//! beside the others. It is one static file, so that it runs in any image.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// No review is larger.
const MOST_BYTES: u64 = 8 << 20;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, at] = words.as_slice() else { bail!("usage: sidecar CERTIFICATE KEY ADDRESS") };
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    let (config, listener) = (Arc::new(config), TcpListener::bind(at)?);
    for stream in listener.incoming() {
        let (config, stream) = (config.clone(), stream?);
        thread::spawn(move || {
            if let Err(error) = serve(config, stream) {
                eprintln!("{error:#}");
            }
        });
    }
    Ok(())
}

/// Answers the requests of one connection.
fn serve(config: Arc<ServerConfig>, stream: TcpStream) -> Result<()> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    loop {
        let mut length = None;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<u64>()?);
            }
        }
        let mut body = Vec::new();
        stream.by_ref().take(length.context("no length")?.min(MOST_BYTES)).read_to_end(&mut body)?;
        let answer = answer(&serde_json::from_slice(&body)?).to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.get_mut().write_all((head + &answer).as_bytes())?;
        stream.get_mut().flush()?;
    }
}

fn answer(review: &Value) -> Value {
    let pod = &review["request"]["object"];
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let container = json!({
        "name": "beside", "image": "trimtab.local/busybox:latest", "imagePullPolicy": "Never", "restartPolicy": "Always",
        "command": ["sh", "-c", format!("echo beside {name}; trap 'exit 0' TERM; while :; do sleep 0.2; done")],
    });
    let list = pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
    let all: Vec<Value> = std::iter::once(container).chain(list).collect();
    let patch = json!([{"op": "add", "path": "/spec/initContainers", "value": all}]).to_string();
    let response = json!({"uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch",
        "patch": STANDARD.encode(patch)});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}
