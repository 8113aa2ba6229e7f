//! Joining a cluster with a bootstrap token that pins the server's CA.
//!
//! A token is `K10<hash>::<id>.<secret>`: the SHA-256 of the CA certificate's DER in hexadecimal, then a Kubernetes
//! bootstrap token (six and sixteen letters or digits), which the server knows as the secret `bootstrap-token-<id>` in
//! kube-system. The server sends its CA behind its own certificate in the handshake; the joiner takes it only where the
//! hash matches and the server's certificate is signed by it. So nothing is ever trusted unseen.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use http::Uri;
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::issue::{self, Files};
use crate::kubeconfig::{Kubeconfig, User};
use crate::signature::Signatures;
use crate::{Error, connector, files, from_token, tls};

const PREFIX: &str = "K10";

/// A token with the hash of the CA it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// The SHA-256 of the CA certificate (DER).
    pub ca_hash: [u8; 32],
    /// The public half: names the secret.
    pub id: String,
    /// The secret half.
    pub secret: String,
}

impl JoinToken {
    /// The token for a CA (PEM) and a bootstrap token.
    pub fn new(ca_pem: &str, id: &str, secret: &str) -> Result<Self, Error> {
        let certificates = tls::certificates(ca_pem)?;
        let ca = certificates.first().ok_or(Error::Token)?;
        Ok(Self { ca_hash: hash(ca), id: id.into(), secret: secret.into() })
    }

    /// The bearer token: `<id>.<secret>`.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.ca_hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "::{}", self.bearer())
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (hash, token) = text.trim().strip_prefix(PREFIX).and_then(|t| t.split_once("::")).ok_or(Error::Token)?;
        let (id, secret) = token.split_once('.').ok_or(Error::Token)?;
        let letters = |t: &str, n| t.len() == n && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !letters(id, 6) || !letters(secret, 16) {
            return Err(Error::Token);
        }
        Ok(Self { ca_hash: unhex(hash).ok_or(Error::Token)?, id: id.into(), secret: secret.into() })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn hash(der: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, der).as_ref());
    bytes
}

/// What a node has after joining; all below one folder.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The node's kubeconfig, which names the certificate by path.
    pub kubeconfig: PathBuf,
    /// The client certificate, to be kept fresh with [`issue::keep`].
    pub client: Files,
    /// The cluster's CA.
    pub ca: PathBuf,
}

/// Gets a client certificate for a node with a token, unless `folder` holds a fresh one of an earlier call.
pub async fn join(server: &str, token: &JoinToken, node: &str, folder: &Path) -> Result<Joined, Error> {
    let joined = Joined {
        kubeconfig: folder.join("kubelet.kubeconfig"),
        client: Files { certificate: folder.join("kubelet-client.crt"), key: folder.join("kubelet-client.key") },
        ca: folder.join("ca.crt"),
    };
    if joined.kubeconfig.exists() && joined.ca.exists() && joined.client.fresh() {
        return Ok(joined);
    }
    let ca = fetch_ca(server, token).await?;
    let client = from_token(server, &ca, &token.bearer())?;
    joined.client.write(&issue::issue(&client, &issue::kubelet_client(node)).await?)?;
    files::write_secret(&joined.ca, ca.as_bytes())?;
    let Files { certificate, key } = joined.client.clone();
    let name = format!("system:node:{node}");
    let user = User::Files { certificate, key };
    Kubeconfig { cluster: "trimtab".into(), server: server.into(), ca, name, user }.write(&joined.kubeconfig)?;
    Ok(joined)
}

/// The server's CA (PEM), where it is the one that the token names.
pub async fn fetch_ca(server: &str, token: &JoinToken) -> Result<String, Error> {
    let uri: Uri = server.parse().map_err(|_| Error::Server(server.into()))?;
    let host = uri.host().ok_or_else(|| Error::Server(server.into()))?;
    let pin =
        Arc::new(Pin { hash: token.ca_hash, found: Mutex::new(None), signatures: Signatures::of(tls::provider()) });
    let config = tls::builder()?.dangerous().with_custom_certificate_verifier(pin.clone()).with_no_client_auth();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|_| Error::Server(server.into()))?;
    let connect = async {
        let tcp = connector::dial(host, uri.port_u16().unwrap_or(443)).await?;
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    };
    let tried = connect.await;
    let found = pin.found.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (tried, found) {
        (Ok(_), Some(ca)) => Ok(pem(&ca)),
        (Err(source), Some(_)) => Err(Error::Connect { server: server.into(), source }),
        (Err(source), None) if source.kind() != std::io::ErrorKind::InvalidData => {
            Err(Error::Connect { server: server.into(), source })
        }
        _ => Err(Error::Pin),
    }
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).filter_map(|at| text.get(at..text.len().min(at + 64))).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Trusts the one CA with that hash, if the server shows it; everything else is checked as always.
#[derive(Debug)]
struct Pin {
    hash: [u8; 32],
    found: Mutex<Option<CertificateDer<'static>>>,
    signatures: Signatures,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let ca = intermediates.iter().find(|c| hash(c) == self.hash).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let checks = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider());
        let checks = checks.build().map_err(|_| unknown())?;
        let verified = checks.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca.clone().into_owned());
        Ok(verified)
    }

    crate::verify_signatures!();
}
