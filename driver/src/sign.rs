//! Signs certificates for approved requests (`pkg/controller/certificates/signer`).

use std::time::Duration;

use rand::RngExt;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use reconcile::Signing;

/// Makes certificates.
pub trait Signer: Send + Sync {
    /// The PEM of a certificate for an approved request, or why there is none.
    fn sign(&self, signing: &Signing) -> Result<Vec<u8>, String>;
}

/// How long before now a certificate begins, for clocks that are late.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// The shortest life a requester may ask for.
const SHORTEST: Duration = Duration::from_secs(10 * 60);

/// A CA's certificate and key.
pub struct CaSigner {
    issuer: Issuer<'static, KeyPair>,
    longest: Duration,
}

impl CaSigner {
    /// From PEM. `longest` is the life of certificates whose request names none, and the most it may name
    /// (upstream's `--cluster-signing-duration`).
    pub fn from_pem(certificate: &str, key: &str, longest: Duration) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(|e| format!("the CA's key: {e}"))?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(|e| format!("the CA's certificate: {e}"))?;
        Ok(Self { issuer, longest })
    }
}

impl Signer for CaSigner {
    fn sign(&self, signing: &Signing) -> Result<Vec<u8>, String> {
        let request = std::str::from_utf8(&signing.request_pem).map_err(|e| format!("the request is not PEM: {e}"))?;
        let mut request =
            CertificateSigningRequestParams::from_pem(request).map_err(|e| format!("the request: {e}"))?;
        let asked = signing.expiration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
        let life = asked.map_or(self.longest, |a| a.clamp(SHORTEST.min(self.longest), self.longest));
        restrict(&mut request.params, &signing.usages)?;
        let now = u64::try_from(signing.now.as_second()).unwrap_or_default();
        let epoch = date_time_ymd(1970, 1, 1);
        request.params.not_before = epoch + (Duration::from_secs(now).saturating_sub(BACKDATE));
        request.params.not_after = epoch + Duration::from_secs(now) + life;
        let mut serial: [u8; 16] = rand::rng().random();
        serial[0] &= 0x7f;
        request.params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = request.signed_by(&self.issuer).map_err(|e| format!("signing: {e}"))?;
        Ok(certificate.pem().into_bytes())
    }
}

/// Only the approved usages, and never a CA, whatever the request holds.
fn restrict(params: &mut CertificateParams, usages: &[String]) -> Result<(), String> {
    params.is_ca = IsCa::ExplicitNoCa;
    params.name_constraints = None;
    params.use_authority_key_identifier_extension = true;
    params.key_usages.clear();
    params.extended_key_usages.clear();
    for usage in usages {
        match (key_usage(usage), extended_usage(usage)) {
            (Some(usage), _) => params.key_usages.push(usage),
            (None, Some(usage)) => params.extended_key_usages.push(usage),
            (None, None) => return Err(format!("unrecognized usage values: [{usage}]")),
        }
    }
    Ok(())
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    Some(match usage {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        _ => return None,
    })
}

fn extended_usage(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match usage {
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use reconcile::{ObjectName, Resource, Signing, Target, Timestamp};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::{CaSigner, Signer};

    #[test]
    fn a_certificate_has_the_approved_usages_and_never_signs_others() {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = ca.self_signed(&key).unwrap().pem();
        let signer = CaSigner::from_pem(&certificate, &key.serialize_pem(), Duration::from_secs(3600)).unwrap();
        let request = ca.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let mut signing = Signing {
            target: Target {
                resource: Resource::of::<k8s_openapi::api::certificates::v1::CertificateSigningRequest>(),
                object: ObjectName::default(),
            },
            resource_version: "1".into(),
            signer: "kubernetes.io/kube-apiserver-client".into(),
            request_pem: request.into_bytes(),
            usages: vec!["client auth".into(), "digital signature".into()],
            expiration_seconds: Some(1_000_000),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        };
        let pem = signer.sign(&signing).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let (_, signed) = X509Certificate::from_der(&pem.contents).unwrap();
        assert!(!signed.is_ca());
        let usage = signed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(signed.validity().not_after.timestamp(), 1_800_003_600);
        assert_eq!(signed.validity().not_before.timestamp(), 1_799_999_700);
        signing.usages.push("cert sign".into());
        assert!(signer.sign(&signing).is_err());
    }
}
