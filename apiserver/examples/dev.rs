//! A server on the memory store for trying things out: makes a CA of its own, writes an admin kubeconfig, and lets only
//! the bearer of its client certificate (a `system:masters` user) do anything.
//!
//! `cargo run -p apiserver --example dev -- 127.0.0.1:7443 /tmp/dev.kubeconfig`
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

use std::sync::Arc;

use apiserver::attributes::Attributes;
use apiserver::authz::{Authorizer, Decision};
use apiserver::parts::Authenticator;
use apiserver::view::View;
use apiserver::{Config, Parts, Server, User};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

struct Certificates;

impl Authenticator for Certificates {
    fn certificate(&self, chain: &[CertificateDer<'_>], _now: api::Timestamp) -> Option<User> {
        let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
        let name = certificate.subject().iter_common_name().next().and_then(text)?;
        let groups = certificate.subject().iter_organization().filter_map(text).collect();
        Some(User { name, groups, ..User::default() })
    }

    fn token(&self, _token: &str, _view: &dyn View, _now: api::Timestamp) -> Option<User> {
        None
    }
}

struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes, _view: &dyn View) -> Decision {
        let open = ["/healthz", "/livez", "/readyz", "/version"].iter().any(|p| attributes.path.starts_with(p));
        match attributes.user.is_in("system:masters") || (attributes.resource.is_none() && open) {
            true => Decision::Allow { reason: String::new() },
            false => Decision::NoOpinion { reason: String::new() },
        }
    }
}

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("first provider");
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7443".into());
    let kubeconfig = arguments.next().unwrap_or_else(|| "/tmp/trimtab-dev.kubeconfig".into());
    let (tls, config) = credentials(&address);
    std::fs::write(&kubeconfig, config).expect("kubeconfig");
    let parts = Parts {
        authenticator: Arc::new(Certificates),
        authorizers: vec![Arc::new(Masters)],
        admission: apiserver::admission::PLUGINS.to_vec(),
        answers: Vec::new(),
        connects: Vec::new(),
        audit: None,
        pages: None,
    };
    let store = Arc::new(store::memory::Memory::new());
    let server = Server::start(Config { advertise: address.clone(), ..Config::default() }, store, parts).await.unwrap();
    let listener = tokio::net::TcpListener::bind(&address).await.expect("address");
    let (_keep, tls) = tokio::sync::watch::channel(tls);
    println!("serving on {address}, kubeconfig {kubeconfig}");
    server.serve(listener, tls).await.expect("serve");
}

fn credentials(address: &str) -> (Arc<rustls::ServerConfig>, String) {
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "dev");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("key")).expect("CA");
    let (server_key, client_key) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
    let server = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("parameters");
    let server = server.signed_by(&server_key, &ca).expect("certificate");
    let mut client = CertificateParams::new(Vec::new()).expect("parameters");
    client.distinguished_name.push(DnType::CommonName, "admin");
    client.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let client = client.signed_by(&client_key, &ca).expect("certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).expect("root");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build().expect("verifier");
    let key = PrivateKeyDer::try_from(server_key.serialize_der()).expect("key");
    let mut tls = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], key)
        .expect("TLS");
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let base = |pem: String| STANDARD.encode(pem);
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: dev\n\
         clusters: [{{name: dev, cluster: {{server: 'https://{address}', certificate-authority-data: {}}}}}]\n\
         users: [{{name: admin, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n\
         contexts: [{{name: dev, context: {{cluster: dev, user: admin}}}}]\n",
        base(ca.pem()),
        base(client.pem()),
        base(client_key.serialize_pem())
    );
    (Arc::new(tls), config)
}
