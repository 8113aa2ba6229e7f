//! Mirrors, and certificates of registries' own.

use std::sync::Arc;

use runtime_image::{Auth, Error, Host, Image, Registries, Store};
use rustls_pki_types::PrivateKeyDer;

use crate::registry::{Answer, Registry};
use crate::sample::{Sample, options, residue, wait};

fn pull(origin: &str, mirrors: &[&Registry], auth: &Auth) -> (tempfile::TempDir, Result<Image, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut options = options(&[origin]);
    let mirrors = mirrors.iter().map(|mirror| format!("http://{}", mirror.address)).collect();
    options.registries.hosts.insert(origin.to_owned(), Host { mirrors, ..Host::default() });
    let result = wait(store.pull(&format!("{origin}/team/app:1"), auth, &options, |_| {}));
    (dir, result)
}

#[test]
fn mirrors_are_asked_first_and_get_no_credentials_of_others() {
    let (mirror, origin) = (Registry::honest(), Registry::honest());
    Sample::two().serve(&mirror);
    let me = Auth::Basic { username: "me".into(), password: "secret".into() };
    let (_dir, image) = pull(&origin.address, &[&mirror], &me);
    assert_eq!(image.unwrap().names, [format!("{}/team/app:1", origin.address)]);
    assert_eq!(origin.seen.lock().unwrap().len(), 0);
    let asked = mirror.seen.lock().unwrap();
    assert!(asked.iter().all(|seen| seen.header("authorization").is_none()));
    let namespace = format!("ns={}", origin.address.replace(':', "%3A"));
    assert!(asked.iter().all(|seen| seen.query == namespace), "{asked:?}");
}

#[test]
fn a_mirror_that_fails_or_lies_is_passed_over() {
    let empty = Registry::honest();
    let lying = Registry::lying(|seen, answer| match seen.path.contains("/blobs/") {
        true => Answer { body: vec![0; answer.body.len()].into(), ..answer },
        false => answer,
    });
    let (short, origin) = (
        Registry::lying(|seen, answer| match seen.path.contains("/blobs/") {
            true => Answer { cut: Some(answer.body.len() / 2), ..Answer::new(200, answer.body) },
            false => answer,
        }),
        Registry::honest(),
    );
    for registry in [&lying, &short, &origin] {
        Sample::two().serve(registry);
    }
    let (dir, image) = pull(&origin.address, &[&empty, &lying, &short], &Auth::Anonymous);
    let image = image.unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.verify(&image.id).unwrap(), Vec::<String>::new());
    assert!(!empty.seen.lock().unwrap().is_empty() && !lying.seen.lock().unwrap().is_empty());
    assert!(residue(dir.path()).iter().all(|name| !name.starts_with("partial")));
}

#[test]
fn where_no_mirror_has_it_the_registry_itself_is_blamed() {
    let (mirror, origin) = (Registry::lying(|_, _| Answer::new(404, "")), Registry::honest());
    let (dir, result) = pull(&origin.address, &[&mirror], &Auth::Anonymous);
    assert_eq!(result.unwrap_err().to_string(), format!("{}/team/app:1: not found", origin.address));
    assert_eq!(residue(dir.path()), Vec::<String>::new());
}

#[test]
fn a_mirror_that_is_no_url_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for wrong in ["mirror.example", "ftp://mirror.example", ""] {
        let mut options = options(&[]);
        let host = Host { mirrors: vec![wrong.to_owned()], ..Host::default() };
        options.registries.hosts.insert("docker.io".to_owned(), host);
        let error = wait(store.pull("app", &Auth::Anonymous, &options, |_| {})).unwrap_err().to_string();
        assert!(error.contains(&format!("mirror {wrong:?}")), "{error}");
    }
}

/// A TLS front for a registry; it wants a certificate of `ca`'s. Returns its address.
fn tls(registry: &Registry, ca: &rcgen::Certificate, server: (rcgen::Certificate, rcgen::KeyPair)) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let key = PrivateKeyDer::try_from(server.1.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_client_cert_verifier(verifier);
    let config = Arc::new(config.with_single_cert(vec![server.0.der().clone()], key).unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, behind) = (listener.local_addr().unwrap().to_string(), registry.address.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (tokio_rustls::TlsAcceptor::from(config.clone()), behind.clone());
                tokio::spawn(async move {
                    let mut outer = acceptor.accept(stream).await?;
                    let mut inner = tokio::net::TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut outer, &mut inner).await
                });
            }
        });
    });
    address
}

#[test]
fn a_registry_has_certificates_of_its_own_and_wants_ours() {
    let registry = Registry::honest();
    Sample::two().serve(&registry);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, ca_key);
    let signed = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (parameters.signed_by(&key, &issuer).unwrap(), key)
    };
    let address = tls(&registry, &ca, signed("127.0.0.1"));
    let (me, my_key) = signed("me");
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let pull = |host: Host| {
        let mut options = options(&[]);
        options.registries = Registries { hosts: [(address.clone(), host)].into(), ..Registries::default() };
        wait(store.pull(&format!("{address}/team/app:1"), &Auth::Anonymous, &options, |_| {}))
    };
    let ca_pem = Some(ca.pem().into_bytes());
    let client_pem = Some([me.pem(), my_key.serialize_pem()].concat().into_bytes());
    pull(Host { ca_pem: ca_pem.clone(), client_pem: client_pem.clone(), ..Host::default() }).unwrap();
    let strange = pull(Host { client_pem, ..Host::default() }).unwrap_err();
    assert!(matches!(strange, Error::Transport(_)), "{strange}");
    let nobody = pull(Host { ca_pem, ..Host::default() }).unwrap_err();
    assert!(matches!(nobody, Error::Transport(_)), "{nobody}");
    let error = pull(Host { ca_pem: Some(b"no certificate".to_vec()), ..Host::default() }).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}
