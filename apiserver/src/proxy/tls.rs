//! TLS towards nodes, and towards pods that want it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::identity::{self, Identity, kubelet_client, provider, roots};

/// What to show to nodes, and what to expect of them.
pub(super) struct Nodes {
    ca: String,
    certificate: PathBuf,
    key: PathBuf,
}

impl Nodes {
    pub(super) fn new(identity: &Identity) -> Result<Self, identity::Error> {
        let (certificate, key) = kubelet_client(identity);
        let nodes = Self { ca: identity.pki().ca_pem().into(), certificate, key };
        nodes.config()?;
        Ok(nodes)
    }

    /// Read for each connection, so that a renewed certificate takes effect at once.
    pub(super) fn config(&self) -> Result<ClientConfig, identity::Error> {
        let pem = |e: rustls_pki_types::pem::Error| identity::Error::Pem(e.to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&self.certificate).map_err(pem)?.collect();
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(pem)?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(&self.ca)?);
        Ok(config.with_client_auth_cert(chain.map_err(pem)?, key)?)
    }
}

/// For pods and services behind `https:`: there is nobody who could vouch for their certificates, and the traffic is the
/// user's own, so Kubernetes takes any; the server shows no identity of its own.
pub(super) fn anybody() -> Result<ClientConfig, identity::Error> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth())
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
