//! What a PKCS#10 request asks for.

use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// The parts of a request that matter for approval.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) common_name: String,
    organizations: Vec<String>,
    /// DNS names and addresses.
    pub(super) names: Vec<String>,
    /// There are alternative names of other kinds.
    other_names: bool,
}

impl Request {
    /// Reads PEM.
    pub(super) fn parse(pem: &[u8]) -> Option<Self> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
        if pem.label != "CERTIFICATE REQUEST" {
            return None;
        }
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).ok()?;
        let subject = &parsed.certification_request_info.subject;
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().map(str::to_owned).ok();
        let mut request = Self {
            common_name: subject.iter_common_name().next().and_then(text).unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(text).collect(),
            ..Self::default()
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|n| request.note(n));
            }
        }
        Some(request)
    }

    fn note(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(dns) => self.names.push((*dns).into()),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(address) => self.names.push(address.to_string()),
                None => self.other_names = true,
            },
            _ => self.other_names = true,
        }
    }

    fn is_node(&self) -> bool {
        self.organizations == ["system:nodes"] && self.common_name.starts_with("system:node:")
    }

    /// The shape of a kubelet's client certificate.
    pub(super) fn is_kubelet_client(&self, usages: &[String]) -> bool {
        self.is_node() && self.names.is_empty() && !self.other_names && are(usages, "client auth")
    }

    /// The shape of a kubelet's serving certificate.
    pub(super) fn is_kubelet_serving(&self, usages: &[String]) -> bool {
        self.is_node() && !self.names.is_empty() && !self.other_names && are(usages, "server auth")
    }

    /// The shape of any client certificate.
    pub(super) fn is_client(&self, usages: &[String]) -> bool {
        let known = |u: &String| matches!(u.as_str(), "client auth" | "digital signature" | "key encipherment");
        usages.iter().all(known) && usages.iter().any(|u| u == "client auth")
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Signature, this purpose, and at most key encipherment.
fn are(usages: &[String], purpose: &str) -> bool {
    let mut rest: Vec<&str> = usages.iter().map(String::as_str).collect();
    rest.sort_unstable();
    rest.dedup();
    let required = rest.contains(&"digital signature") && rest.contains(&purpose);
    rest.retain(|u| *u != "digital signature" && *u != purpose && *u != "key encipherment");
    required && rest.is_empty()
}
