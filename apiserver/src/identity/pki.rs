//! Keys and certificates on disk: the cluster's CA and that of front proxies, and certificates that they sign.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;

const DAY: u64 = 24 * 3600;
const CA_DAYS: u64 = 3650;
const LEAF_DAYS: u64 = 365;
/// Clocks of other machines may be late.
const BACKDATE: u64 = 300;

/// A certificate (with what signed it behind it) and its key, PEM.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Usage {
    Server,
    Client,
}

/// A certificate to have.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The file name without ending.
    pub file: &'static str,
    /// The user.
    pub common_name: String,
    /// The groups.
    pub organizations: Vec<String>,
    /// For servers.
    pub dns_names: Vec<String>,
    /// For servers.
    pub addresses: Vec<IpAddr>,
    /// What it is for.
    pub usage: Usage,
}

impl Wanted {
    /// A client certificate for a user in a group.
    pub fn client(file: &'static str, user: &str, group: Option<&str>) -> Self {
        Self {
            file,
            common_name: user.into(),
            organizations: group.map(str::to_owned).into_iter().collect(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
        }
    }
}

/// A certificate authority: its files without ending, and the name it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authority {
    file: &'static str,
    name: &'static str,
}

/// The cluster's own.
pub(crate) const CLUSTER: Authority = Authority { file: "ca", name: "kubernetes" };
/// Of those who speak for others in `X-Remote-` headers.
pub(crate) const FRONT_PROXY: Authority = Authority { file: "front-proxy-ca", name: "front-proxy-ca" };

/// A CA and the folder of what it signed.
pub struct Pki {
    folder: PathBuf,
    ca: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Reads the certificate and the key of an authority, or makes them when neither is there.
    pub(crate) fn open(folder: &Path, of: Authority, now: Timestamp) -> Result<Self, Error> {
        let [certificate, key] = ["crt", "key"].map(|ending| folder.join(format!("{}.{ending}", of.file)));
        let ca = match (read(&certificate), read(&key)) {
            (Some(certificate), Some(key)) => Pair { certificate, key },
            (None, None) => {
                let ca = authority(of.name, now)?;
                client::write_secret(&key, ca.key.as_bytes())?;
                client::write_secret(&certificate, ca.certificate.as_bytes())?;
                ca
            }
            (Some(_), None) => return Err(missing(key)),
            (None, Some(_)) => return Err(missing(certificate)),
        };
        let bad = |why: rcgen::Error| Error::Key { path: key.clone(), why: why.to_string() };
        let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key).map_err(bad)?)?;
        Ok(Self { folder: folder.into(), ca, issuer })
    }

    /// The CA's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca.certificate
    }

    /// The CA's key, PEM: for the one who signs certificate requests.
    pub fn ca_key_pem(&self) -> &str {
        &self.ca.key
    }

    /// The paths of a certificate and its key.
    pub fn paths(&self, file: &str) -> (PathBuf, PathBuf) {
        (self.folder.join(format!("{file}.crt")), self.folder.join(format!("{file}.key")))
    }

    /// The certificate of the files, where it is signed by this CA, says what is wanted and is not due for renewal;
    /// else a new one, written to the files.
    pub fn certificate(&self, wanted: &Wanted, now: Timestamp) -> Result<Pair, Error> {
        let (certificate, key) = self.paths(wanted.file);
        if let (Some(certificate), Some(key)) = (read(&certificate), read(&key))
            && self.serves(wanted, &certificate, now)
        {
            return Ok(Pair { certificate, key });
        }
        let made = self.sign(wanted, now)?;
        client::write_secret(&key, made.key.as_bytes())?;
        client::write_secret(&certificate, made.certificate.as_bytes())?;
        Ok(made)
    }

    fn sign(&self, wanted: &Wanted, now: Timestamp) -> Result<Pair, Error> {
        let mut params = CertificateParams::new(wanted.dns_names.clone())?;
        params.subject_alt_names.extend(wanted.addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.distinguished_name = distinguished(&wanted.common_name, &wanted.organizations);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match wanted.usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        lasting(&mut params, now, LEAF_DAYS);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        // With the CA behind it, so that a joining node finds what its token pins.
        Ok(Pair { certificate: certificate.pem() + &self.ca.certificate, key: key.serialize_pem() })
    }

    fn serves(&self, wanted: &Wanted, pem: &str, now: Timestamp) -> bool {
        let due = client::validity(pem).map_or(0, |validity| validity.renew_at());
        pem.ends_with(&self.ca.certificate) && due > now.as_second() && says(wanted, pem)
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn missing(path: PathBuf) -> Error {
    Error::Key { path, why: "it is missing, and its other half is there".into() }
}

/// Whether a certificate has the names that are wanted.
fn says(wanted: &Wanted, pem: &str) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else { return false };
    let Ok((_, parsed)) = X509Certificate::from_der(&pem.contents) else { return false };
    let mut names: Vec<String> = wanted.dns_names.clone();
    names.extend(wanted.addresses.iter().map(IpAddr::to_string));
    let mut found: Vec<String> = match parsed.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().map(text).collect(),
        _ => Vec::new(),
    };
    names.sort();
    found.sort();
    let user = parsed.subject().iter_common_name().filter_map(|n| n.as_str().ok()).eq([wanted.common_name.as_str()]);
    user && names == found
}

fn text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).map(|a| a.to_string()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn distinguished(common_name: &str, organizations: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn lasting(params: &mut CertificateParams, now: Timestamp, days: u64) {
    let (epoch, now) = (date_time_ymd(1970, 1, 1), u64::try_from(now.as_second()).unwrap_or_default());
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(BACKDATE));
    params.not_after = epoch + Duration::from_secs(now + days * DAY);
}

fn authority(name: &str, now: Timestamp) -> Result<Pair, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = distinguished(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lasting(&mut params, now, CA_DAYS);
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}
