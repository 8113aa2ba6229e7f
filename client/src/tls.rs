//! TLS configurations: ring, our CA, and a client certificate.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;
use crate::target::{Credentials, Target};

/// What protocols a connection may speak.
pub(crate) const H2: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Upgrades need HTTP/1.1.
pub(crate) const HTTP1: &[&[u8]] = &[b"http/1.1"];

/// The crypto provider, named so that no process-wide default is needed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

pub(crate) fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    Ok(ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?)
}

/// The certificates of a PEM text.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| Error::Pem("the certificate".into()))
}

pub(crate) fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// The configuration for a target, read from its files as they are now.
pub(crate) fn config(target: &Target) -> Result<ClientConfig, Error> {
    let builder = builder()?.with_root_certificates(roots(&target.ca.read()?)?);
    Ok(match &target.credentials {
        Credentials::Certificate { certificate, key } => {
            let key =
                PrivateKeyDer::from_pem_slice(key.read()?.as_bytes()).map_err(|_| Error::Pem("the key".into()))?;
            builder.with_client_auth_cert(certificates(&certificate.read()?)?, key)?
        }
        Credentials::None | Credentials::Token(_) => builder.with_no_client_auth(),
    })
}
