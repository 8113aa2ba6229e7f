//! TLS towards nodes, and towards pods that want it.

use std::path::PathBuf;
use std::sync::Arc;

use client::signature::Signatures;
use rustls::ClientConfig;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
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
    let anybody = Anybody { signatures: Signatures::of(provider()) };
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(anybody)).with_no_client_auth())
}

/// Takes any server. Only [`anybody`] makes it, and only the proxy to pods and services with `https:` before their name
/// (`Peer::Tls`) comes to that; nodes and everything else are checked against our CA.
#[derive(Debug)]
struct Anybody {
    signatures: Signatures,
}

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

    client::verify_signatures!();
}
