//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve and sign for whom.

use api::{Document, GroupVersion, ObjectName, StatusResult};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::{Context, Plugin};
use crate::attributes::{Attributes, ResourceAttributes};
use crate::authz;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub(super) struct CertificateApproval;
pub(super) struct CertificateSigning;
pub(super) struct CertificateSubjectRestriction;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(&self, csr: &Document, context: &Context<'_>) -> StatusResult<()> {
        match context.old {
            Some(old) if context.targets(GROUP, REQUESTS, "approval") => signer_allows(csr, old, context, "approve"),
            _ => Ok(()),
        }
    }
}

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(&self, csr: &Document, context: &Context<'_>) -> StatusResult<()> {
        let Some(old) = context.old.filter(|_| context.targets(GROUP, REQUESTS, "status")) else { return Ok(()) };
        let kept = |pointer: &str| api::validation::same(old.at(pointer), csr.at(pointer));
        match kept("/status/certificate") && kept("/status/conditions") {
            true => Ok(()),
            false => signer_allows(csr, old, context, "sign"),
        }
    }
}

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(&self, csr: &Document, context: &Context<'_>) -> StatusResult<()> {
        let asked = context.verb() == "create" && context.is(GROUP, REQUESTS);
        if !asked || csr.str_at("/spec/signerName") != CLIENT_SIGNER {
            return Ok(());
        }
        let subject = subject(csr).map_err(|why| context.forbidden(csr, format!("failed to parse CSR: {why}")))?;
        match subject.organizations.iter().any(|group| group == "system:masters") {
            true => {
                let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
                Err(context.forbidden(csr, why))
            }
            false => Ok(()),
        }
    }
}

/// Whether the user has the verb on the signer's name, or on all names of its domain. The signer is the stored one: a
/// request may not talk its way out of it.
fn signer_allows(csr: &Document, old: &Document, context: &Context<'_>, verb: &str) -> StatusResult<()> {
    let signer = old.str_at("/spec/signerName");
    let domain = signer.split('/').next().unwrap_or_default();
    let may = |name: &str| {
        let target = ResourceAttributes {
            group_version: GroupVersion { group: GROUP.into(), version: "*".into() },
            resource: "signers".into(),
            subresource: String::new(),
            object: ObjectName { namespace: String::new(), name: name.into() },
            fields: Vec::new(),
        };
        let user = context.attributes.user.clone();
        let asked = Attributes { user, verb: verb.into(), resource: Some(target), path: String::new() };
        authz::decide(&authz::authorizers(), &asked, context.view).allowed()
    };
    match may(signer) || may(&format!("{domain}/*")) {
        true => Ok(()),
        false => {
            Err(context.forbidden(csr, format!("user not permitted to {verb} requests with signerName {signer:?}")))
        }
    }
}

/// Whom a request is for.
pub(super) struct Subject {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
}

/// The subject of the PKCS #10 request in `spec.request`.
pub(super) fn subject(csr: &Document) -> Result<Subject, String> {
    let text = csr.at("/spec/request").and_then(Value::as_str).unwrap_or_default();
    let pem = BASE64_STANDARD.decode(text).map_err(|e| e.to_string())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| "PEM block type must be CERTIFICATE REQUEST")?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| e.to_string())?;
    let name = &request.certification_request_info.subject;
    let common_name = name.iter_common_name().find_map(|n| n.as_str().ok()).unwrap_or_default().to_owned();
    let organizations = name.iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
    Ok(Subject { common_name, organizations })
}
