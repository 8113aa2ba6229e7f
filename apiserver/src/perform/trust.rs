//! Whom to trust at the other end of a webhook: its `caBundle`, or whom the host trusts.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{self, provider, roots};

/// Where hosts keep the certificates they trust (Go's list for Linux).
const HOST_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// For a `caBundle`, empty where none is given.
pub(super) fn config(ca_bundle: &[u8]) -> Result<ClientConfig, identity::Error> {
    let pem = match ca_bundle.is_empty() {
        true => HOST_BUNDLES.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default(),
        false => String::from_utf8_lossy(ca_bundle).into_owned(),
    };
    let trusted = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(&pem)?), provider()).build();
    let inner = inner.map_err(|error| identity::Error::Pem(error.to_string()))?;
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let verifier = Arc::new(Verifier { inner, trusted });
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// The usual rules, but for one: a certificate that is itself in the bundle is trusted though it calls itself a CA, as
/// self-signed ones made by `openssl req -x509` do. Go takes them.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(CertificateError::Other(_))) => {}
            decided => return decided,
        }
        if !self.trusted.iter().any(|trusted| trusted.as_ref() == end_entity.as_ref()) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        in_time(end_entity, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now) {
        true => Ok(()),
        false => Err(CertificateError::Expired.into()),
    }
}
