//! Certificates from the cluster: a CertificateSigningRequest, its approval, its certificate; and renewing in time.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{Api, ObjectMeta, PostParams, WatchEvent, WatchParams};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use crate::{Client, Error, certificate, files};

/// How long to wait for somebody to approve and sign (kubelet waits 15 minutes too).
const ISSUE_WITHIN: Duration = Duration::from_secs(900);
/// After a failed renewal.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What certificate is wanted.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Who shall sign, such as `kubernetes.io/kube-apiserver-client-kubelet`.
    pub signer: String,
    /// The common name: the user.
    pub common_name: String,
    /// The organizations: the groups.
    pub organizations: Vec<String>,
    /// DNS names, for servers.
    pub dns_names: Vec<String>,
    /// Addresses, for servers.
    pub addresses: Vec<IpAddr>,
    /// Usages in the API's words, such as `digital signature`, `client auth`.
    pub usages: Vec<String>,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

/// A node's client certificate.
pub fn kubelet_client(node: &str) -> Request {
    Request {
        signer: "kubernetes.io/kube-apiserver-client-kubelet".into(),
        common_name: format!("system:node:{node}"),
        organizations: vec!["system:nodes".into()],
        usages: vec!["digital signature".into(), "client auth".into()],
        ..Request::default()
    }
}

/// The certificate of a node's own HTTPS server.
pub fn kubelet_serving(node: &str, addresses: Vec<IpAddr>) -> Request {
    Request {
        signer: "kubernetes.io/kubelet-serving".into(),
        dns_names: vec![node.into()],
        addresses,
        usages: vec!["digital signature".into(), "server auth".into()],
        ..kubelet_client(node)
    }
}

/// Makes a key, asks for its certificate and waits until it is signed, for at most 15 minutes.
pub async fn issue(client: &Client, request: &Request) -> Result<Issued, Error> {
    let key = KeyPair::generate()?;
    let csr = params(request)?.serialize_request(&key)?.pem()?;
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let made = api.create(&PostParams::default(), &object(request, csr)).await?;
    let name = made.metadata.name.unwrap_or_default();
    let version = made.metadata.resource_version.unwrap_or_default();
    let signed = tokio::time::timeout(ISSUE_WITHIN, signed(&api, &name, version)).await;
    let certificate = signed.map_err(|_| Error::Unsigned(name))??;
    Ok(Issued { certificate, key: key.serialize_pem() })
}

fn params(request: &Request) -> Result<CertificateParams, Error> {
    let mut name = DistinguishedName::new();
    for organization in &request.organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, request.common_name.as_str());
    let mut params = CertificateParams::new(request.dns_names.clone())?;
    params.subject_alt_names.extend(request.addresses.iter().map(|a| SanType::IpAddress(*a)));
    params.distinguished_name = name;
    Ok(params)
}

fn object(request: &Request, csr: String) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(csr.into_bytes()),
            signer_name: request.signer.clone(),
            usages: Some(request.usages.clone()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

/// Watches one request from the version of its creation on.
async fn signed(api: &Api<CertificateSigningRequest>, name: &str, mut version: String) -> Result<String, Error> {
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    loop {
        let mut events = api.watch(&only, &version).await?.boxed();
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Added(csr) | WatchEvent::Modified(csr) = event {
                if let Some(certificate) = outcome(name, &csr)? {
                    return Ok(certificate);
                }
                version = csr.metadata.resource_version.unwrap_or(version);
            }
        }
        // The watch ended: look at the object itself, since the version may be gone too.
        let csr = api.get(name).await?;
        if let Some(certificate) = outcome(name, &csr)? {
            return Ok(certificate);
        }
        version = csr.metadata.resource_version.unwrap_or_default();
    }
}

fn outcome(name: &str, csr: &CertificateSigningRequest) -> Result<Option<String>, Error> {
    let Some(status) = &csr.status else { return Ok(None) };
    let refused = status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
    if let Some(condition) = refused {
        let message = condition.message.clone().unwrap_or_default();
        return Err(Error::Refused { name: name.into(), verdict: condition.type_.to_lowercase(), message });
    }
    let pem = status.certificate.as_ref().map(|c| String::from_utf8_lossy(&c.0).into_owned());
    Ok(pem.filter(|pem| !pem.is_empty()))
}

/// Where a certificate and its key are kept.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// Writes both. The key goes first: a reader that finds the old certificate with the new key tries again.
    pub fn write(&self, issued: &Issued) -> Result<(), Error> {
        files::write_secret(&self.key, issued.key.as_bytes())?;
        files::write_secret(&self.certificate, issued.certificate.as_bytes())
    }

    /// Whether a certificate is there that need not be renewed yet.
    pub fn fresh(&self) -> bool {
        self.key.exists() && self.renew_in().is_some_and(|wait| !wait.is_zero())
    }

    fn renew_in(&self) -> Option<Duration> {
        let pem = files::read(&self.certificate).ok()?;
        Some(certificate::validity(&pem).ok()?.renew_in(now()))
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Keeps the files fresh for as long as it is polled: asks for a new certificate after four fifths of the old one's
/// life, and again each minute while that fails. Never ends by itself.
pub async fn keep(client: Client, request: Request, files: Files) {
    loop {
        let wait = files.renew_in().unwrap_or_default();
        tokio::time::sleep(wait).await;
        let renewed = async { files.write(&issue(&client, &request).await?) };
        if let Err(error) = renewed.await {
            tracing::warn!(%error, signer = request.signer, "the certificate cannot be renewed yet");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}
