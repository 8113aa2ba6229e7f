//! Front proxies over TLS, and what servers behind this one are told of whom it trusts.

use std::path::Path;
use std::sync::Arc;

use apiserver::identity::{Identity, Options};
use apiserver::{Config, Server, User, bootstrap};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use store::memory::Memory;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::ask;

/// Who the server takes a client with that certificate for.
async fn taken_for(port: u16, pki: &Path, certificate: &str, headers: &[(&str, &str)]) -> Value {
    let read = |file: String| std::fs::read(pki.join(file)).expect("a file");
    let all = |file: String| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(&read(file)).map(|c| c.expect("PEM").into_owned()).collect()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(all("ca.crt".into()));
    let key = PrivateKeyDer::from_pem_slice(&read(format!("{certificate}.key"))).expect("a key");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(all(format!("{certificate}.crt")), key)
        .expect("a configuration");
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut request = Request::builder().method(Method::POST).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request =
        request.uri("/apis/authentication.k8s.io/v1/selfsubjectreviews").header("content-type", "application/json");
    let answer = sender.send_request(request.body(Full::new(Bytes::from("{}"))).expect("a request")).await;
    let bytes = answer.expect("an answer").into_body().collect().await.expect("a body").to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
    answer.pointer("/status/userInfo").cloned().unwrap_or(answer)
}

#[tokio::test]
async fn a_front_proxy_says_whom_it_speaks_for_and_nobody_else_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options::new(folder.path(), "https://127.0.0.1:6443");
    let pki = options.folder.clone();
    let identity = Identity::open(options, api::Timestamp::now()).expect("an identity");
    let server = Server::start(Config::default(), Arc::new(Memory::new()), identity.parts()).await.expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (serving, tls) = (server.clone(), identity.tls());
    tokio::spawn(async move { serving.serve(listener, tls).await });
    let headers = [
        ("X-Remote-User", "ann"),
        ("X-Remote-Uid", "7"),
        ("X-Remote-Group", "system:masters"),
        ("X-Remote-Extra-Scopes", "s"),
    ];
    let seen = taken_for(port, &pki, "front-proxy-client", &headers).await;
    let want = json!({"username": "ann", "uid": "7", "groups": ["system:masters", "system:authenticated"],
        "extra": {"scopes": ["s"]}});
    assert_eq!(seen, want);
    let seen = taken_for(port, &pki, "admin", &headers).await;
    assert_eq!(seen["username"], "kubernetes-admin", "a user speaks for himself");
    let seen = taken_for(port, &pki, "front-proxy-client", &[]).await;
    assert!(
        seen["message"].as_str().is_some_and(|why| why.contains("system:anonymous")),
        "it is nobody itself: {seen}"
    );

    let user = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    let local = server.clone();
    let client = client::in_process(move || local.local(user.clone()));
    let addresses = [([192, 0, 2, 1], port).into()];
    bootstrap::reconcile(&client, [10, 96, 0, 1].into(), &addresses, &identity.trust()).await.expect("objects");
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let (code, map) = ask(&server, Method::GET, path, None).await;
    let file = |name: &str| std::fs::read_to_string(pki.join(name)).expect("a file");
    let data = json!({
        "client-ca-file": file("ca.crt"),
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
        "requestheader-client-ca-file": file("front-proxy-ca.crt"),
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
    });
    assert_eq!((code, &map["data"]), (200, &data));
    bootstrap::reconcile(&client, [10, 96, 0, 1].into(), &addresses, &identity.trust()).await.expect("objects");
    let (_, again) = ask(&server, Method::GET, path, None).await;
    assert_eq!(again["metadata"]["resourceVersion"], map["metadata"]["resourceVersion"], "nothing is written twice");
}
