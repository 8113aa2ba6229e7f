//! The certificate of the HTTPS endpoints, read again when it changes, and the CA of its clients.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use client::issue::{self, Files};
use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::agent::Agent;
use crate::config::Serving;
use crate::{Error, Result};

/// Keeps the certificate fresh for as long as it is polled.
pub(super) type Renew = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits for a certificate, then makes a configuration that follows its files.
pub(super) async fn config(agent: &Agent) -> Result<(Arc<ServerConfig>, Renew)> {
    let (files, renew) = files(agent).await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &agent.config.client_ca_pem {
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| Error::Invalid(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Live { files, held: Mutex::default() }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), renew))
}

fn roots(pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| Error::Invalid(error.to_string()))?;
        roots.add(certificate)?;
    }
    Ok(roots)
}

async fn files(agent: &Agent) -> (Files, Renew) {
    match &agent.config.serving {
        Serving::Files { certificate, key } => {
            let files = Files { certificate: certificate.clone(), key: key.clone() };
            (files, Box::pin(std::future::pending()))
        }
        Serving::Request => {
            let folder = agent.config.data_dir.join("pki");
            let files = Files { certificate: folder.join("serving.crt"), key: folder.join("serving.key") };
            let _ = crate::memory::private_dir(&folder);
            let wish = issue::kubelet_serving(&agent.config.node_name, agent.config.node_ips.clone());
            // The endpoints listen at once; handshakes fail until the certificate is there.
            (files.clone(), Box::pin(issue::keep(agent.client.clone(), wish, files)))
        }
    }
}

/// The certificate in the files, read again when they are newer.
#[derive(Debug)]
struct Live {
    files: Files,
    held: Mutex<Option<(SystemTime, Arc<CertifiedKey>)>>,
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let changed = modified(&self.files.certificate).max(modified(&self.files.key));
        let mut held = self.held.lock();
        if let Some((at, key)) = held.as_ref()
            && Some(*at) == changed
        {
            return Some(key.clone());
        }
        match read(&self.files) {
            Ok(key) => {
                let key = Arc::new(key);
                *held = changed.map(|at| (at, key.clone()));
                Some(key)
            }
            Err(error) => {
                tracing::warn!(error, "the serving certificate is not usable");
                held.as_ref().map(|(_, key)| key.clone())
            }
        }
    }
}

fn modified(path: &PathBuf) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn read(files: &Files) -> std::result::Result<CertifiedKey, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let chain: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.certificate).map_err(|e| text(&e))?.collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| text(&e))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain.map_err(|e| text(&e))?, key, &provider).map_err(|e| text(&e))
}
