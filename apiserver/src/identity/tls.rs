//! The server's TLS configuration.

use std::sync::Arc;

use client::signature::Signatures;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::Error;
use super::pki::{Pair, Pki};

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

pub(crate) fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.map_err(|e| Error::Pem(e.to_string()))
}

/// Offers HTTP/2 before HTTP/1.1, and asks for a client certificate of one of the authorities without insisting on one.
pub(super) fn config(serving: &Pair, authorities: &[&Pki]) -> Result<ServerConfig, Error> {
    let all: String = authorities.iter().map(|authority| authority.ca_pem()).collect();
    let key = PrivateKeyDer::from_pem_slice(serving.key.as_bytes()).map_err(|e| Error::Pem(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(Asks {
            subjects: roots(&all)?.subjects(),
            signatures: Signatures::of(provider()),
        }))
        .with_single_cert(certificates(&serving.certificate)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Takes any certificate whose key the client has. Who it is, and whether our CA signed it, the authenticator says: a
/// foreign certificate then makes an unknown user, who gets a Status and not a broken handshake.
#[derive(Debug)]
struct Asks {
    subjects: Vec<DistinguishedName>,
    signatures: Signatures,
}

impl ClientCertVerifier for Asks {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    client::verify_signatures!();
}
