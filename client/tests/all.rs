//! The client against small servers of its own.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::join::{JoinToken, fetch_ca};
use client::{Client, Error, Kubeconfig, User, from_kubeconfig, in_process};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

struct Ca {
    pem: String,
    der: rustls_pki_types::CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn ca() -> Ca {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    Ca { pem: made.pem(), der: made.der().clone(), issuer: Issuer::new(params, key) }
}

impl Ca {
    fn sign(&self, name: &str, sans: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(sans.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server that answers who asks, by which HTTP version, over which of its connections.
async fn serve(ca: &Ca) -> SocketAddr {
    let (certificate, key) = ca.sign("server", &["127.0.0.1"]);
    let mut roots = RootCertStore::empty();
    roots.add(ca.der.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(vec![certificate.der().clone(), ca.der.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        for connection in 1.. {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(tcp).await else { continue };
            let who = stream.get_ref().1.peer_certificates().map(|chain| common_name(&chain[0])).unwrap_or_default();
            tokio::spawn(answer(stream, format!("{who} {connection}")));
        }
    });
    address
}

fn common_name(der: &[u8]) -> String {
    let (_, parsed) = X509Certificate::from_der(der).unwrap();
    parsed.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

async fn answer(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static, who: String) {
    let service = service_fn(move |request: Request<Incoming>| {
        let text = format!("{:?} {who} {}", request.version(), request.uri().path());
        async move { Ok::<_, std::convert::Infallible>(Response::new(text)) }
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service).await;
}

async fn get(client: &Client, path: &str) -> String {
    client.request_text(Request::get(path).body(vec![]).unwrap()).await.unwrap()
}

fn write(folder: &Path, ca: &Ca, name: &str) {
    let (certificate, key) = ca.sign(name, &[]);
    client::write_secret(&folder.join("key"), key.serialize_pem().as_bytes()).unwrap();
    client::write_secret(&folder.join("crt"), certificate.pem().as_bytes()).unwrap();
}

#[tokio::test]
async fn requests_share_a_connection_until_the_certificate_changes() {
    let (ca, folder) = (ca(), tempfile::tempdir().unwrap());
    let address = serve(&ca).await;
    write(folder.path(), &ca, "one");
    let user = User::Files { certificate: folder.path().join("crt"), key: folder.path().join("key") };
    let server = format!("https://{address}");
    let path = folder.path().join("kubeconfig");
    let file = Kubeconfig { cluster: "c".into(), server, ca: ca.pem.clone(), name: "a: b".into(), user };
    file.write(&path).unwrap();
    let client = from_kubeconfig(&path).unwrap();
    assert_eq!(get(&client, "/a?x=y").await, "HTTP/2.0 one 1 /a");
    assert_eq!(get(&client, "/b").await, "HTTP/2.0 one 1 /b");
    write(folder.path(), &ca, "two");
    assert_eq!(get(&client, "/c").await, "HTTP/2.0 two 2 /c");
}

#[tokio::test]
async fn in_process_requests_speak_http2_over_pipes() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let client = in_process(move || {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        count.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(answer(theirs, "local".into()));
        ours
    });
    assert_eq!(get(&client, "/a").await, "HTTP/2.0 local /a");
    assert_eq!(get(&client, "/b").await, "HTTP/2.0 local /b");
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_join_token_finds_its_ca_and_no_other() {
    let (right, wrong) = (ca(), ca());
    let server = format!("https://{}", serve(&right).await);
    let token = |ca: &Ca| JoinToken::new(&ca.pem, "abcdef", "0123456789abcdef").unwrap();
    let shown = token(&right).to_string();
    let read: JoinToken = shown.parse().unwrap();
    assert_eq!(read, token(&right));
    let found = fetch_ca(&server, &read).await.unwrap();
    assert_eq!(found.replace(['\r', '\n'], ""), right.pem.replace(['\r', '\n'], ""));
    assert!(matches!(fetch_ca(&server, &token(&wrong)).await, Err(Error::Pin)));
    for bad in ["", "K10::abcdef.0123456789abcdef", "abcdef.0123456789abcdef", &shown[..shown.len() - 1]] {
        assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
    }
}
