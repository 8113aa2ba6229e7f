//! CertificateSigningRequest. That the request is a sound PKCS #10 with a good signature is the server's to check.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::cell::{self, NONE, or, row};
use super::{Change, NameFormat, Operation, Rules};
use crate::field::{Error, Errors, Path};
use crate::tree::{fill, items_mut, number, replace, text, texts};
use crate::validation::{same, supported};
use crate::{Document, Timestamp, duration, time};

/// Rules of `certificates.k8s.io/v1 CertificateSigningRequest`.
pub(super) struct CertificateSigningRequest;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Rules for CertificateSigningRequest {
    fn prepare(&self, new: &mut Document, change: &Change<'_>) {
        match (change.operation, change.subresource, change.old) {
            (Operation::Create, _, _) => {
                let user = change.user.to_owned();
                if let Some(spec) = new.at_mut("/spec") {
                    replace(spec, "username", Some(user.into()));
                }
                new.set("/status", json!({}));
            }
            (_, "", Some(old)) => {
                for pointer in ["/spec", "/status"] {
                    if let Some(value) = old.at(pointer) {
                        new.set(pointer, value.clone());
                    }
                }
            }
            (_, "approval", Some(old)) => approval(new, old, change.now),
            (_, "status", Some(old)) => status(new, old, change.now),
            _ => {}
        }
    }

    fn validate(&self, new: &Document, change: &Change<'_>) -> Errors {
        let mut errors = whole(new);
        if let Some(old) = change.old {
            errors.extend(update(new, old, change.subresource));
        }
        errors
    }

    fn name_format(&self) -> NameFormat {
        NameFormat::PathSegment
    }

    fn selectable(&self, request: &Document) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", request.str_at("/spec/signerName").into())]
    }

    fn cells(&self, request: &Document, now: Timestamp) -> Option<Vec<Value>> {
        let asked = request.i64_at("/spec/expirationSeconds").map_or_else(|| NONE.into(), duration::human);
        row![
            request.name(),
            cell::age(request, now),
            or(request.str_at("/spec/signerName"), NONE),
            request.str_at("/spec/username"),
            asked,
            state(request),
        ]
    }
}

fn state(request: &Document) -> String {
    let has = |kind| cell::condition(request, kind).is_some();
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !request.str_at("/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    state
}

/// Approving changes conditions and nothing else.
fn approval(new: &mut Document, old: &Document, now: Timestamp) {
    let mut conditions = new.at("/status/conditions").cloned();
    if let Some(conditions) = &mut conditions {
        timestamps(conditions, old, now);
    }
    for pointer in ["/spec", "/status"] {
        new.set(pointer, old.at(pointer).cloned().unwrap_or_else(|| json!({})));
    }
    if let Some(conditions) = conditions {
        new.set("/status/conditions", conditions);
    }
}

/// The status endpoint cannot approve or deny.
fn status(new: &mut Document, old: &Document, now: Timestamp) {
    let decides = |c: &&Value| matches!(text(c, "type"), "Approved" | "Denied");
    let before: Vec<Value> = old.list_at("/status/conditions").iter().filter(decides).cloned().collect();
    let decided = |doc: &Document| doc.list_at("/status/conditions").iter().any(|c| decides(&c));
    if !decided(new) && !before.is_empty() {
        let mut all = before;
        all.extend(new.list_at("/status/conditions").to_vec());
        new.set("/status/conditions", all);
    }
    if let Some(conditions) = new.at_mut("/status/conditions") {
        timestamps(conditions, old, now);
    }
}

fn timestamps(conditions: &mut Value, old: &Document, now: Timestamp) {
    let mut all = json!({ "all": conditions.take() });
    for condition in items_mut(&mut all, "all") {
        let kind = text(condition, "type").to_owned();
        let before = cell::condition(old, &kind).filter(|c| text(c, "status") == text(condition, "status"));
        let since = before.map(|c| text(c, "lastTransitionTime")).filter(|t| !t.is_empty());
        let since = since.map_or_else(|| time::rfc3339(now), str::to_owned);
        fill(condition, "lastUpdateTime", time::rfc3339(now));
        fill(condition, "lastTransitionTime", since);
    }
    *conditions = all["all"].take();
}

fn whole(new: &Document) -> Errors {
    let (spec, path) = (new.at("/spec").unwrap_or(&Value::Null), Path::new("spec"));
    let mut errors = Errors::new();
    let request = STANDARD.decode(text(spec, "request")).unwrap_or_default();
    if !request.windows(PEM_START.len()).any(|window| window == PEM_START) {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        let value = spec.get("request").cloned().unwrap_or_default();
        errors.push(Error::invalid(path.child("request"), value, detail));
    }
    errors.extend(usages(&texts(spec, "usages"), &path.child("usages")));
    errors.extend(signer_name(text(spec, "signerName"), &path.child("signerName")));
    if let Some(n) = number(spec, "expirationSeconds").filter(|n| *n < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(Error::invalid(path.child("expirationSeconds"), n, detail));
    }
    errors.extend(conditions(new.list_at("/status/conditions"), &Path::new("status").child("conditions")));
    errors
}

const PEM_START: &[u8] = b"-----BEGIN CERTIFICATE REQUEST-----";

fn usages(usages: &[&str], path: &Path) -> Errors {
    if usages.is_empty() {
        return vec![Error::required(path.clone(), "")];
    }
    let mut errors: Errors =
        usages.iter().enumerate().flat_map(|(i, usage)| supported(usage, &path.index(i), &USAGES)).collect();
    for (i, usage) in usages.iter().enumerate().filter(|(i, usage)| usages.iter().take(*i).any(|u| u == *usage)) {
        errors.push(Error::duplicate(path.index(i), *usage));
    }
    errors
}

/// `domain/path`.
fn signer_name(name: &str, path: &Path) -> Errors {
    if name.is_empty() {
        return vec![Error::required(path.clone(), "")];
    }
    if name == "kubernetes.io/legacy-unknown" {
        let detail = "the legacy signerName is not allowed via this API version";
        return vec![Error::invalid(path.clone(), name, detail)];
    }
    match name.split_once('/') {
        Some((domain, rest)) if !rest.is_empty() && !rest.contains('/') => {
            let mut errors = crate::validation::dns_subdomain(domain, path);
            for part in rest.split('.') {
                errors.extend(crate::validation::dns_label(part, path));
            }
            if !domain.contains('.') {
                let detail = "should be a domain with at least two segments separated by dots";
                errors.push(Error::invalid(path.clone(), name, detail));
            }
            errors
        }
        _ => {
            let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            vec![Error::invalid(path.clone(), name, detail)]
        }
    }
}

fn conditions(conditions: &[Value], path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in conditions.iter().enumerate() {
        let item = path.index(i);
        let (kind, status) = (text(condition, "type"), text(condition, "status"));
        if kind.is_empty() {
            errors.push(Error::required(item.child("type"), ""));
        }
        let allowed: &[&str] =
            if matches!(kind, "Approved" | "Denied" | "Failed") { &["True"] } else { &["False", "True", "Unknown"] };
        errors.extend(crate::validation::one_of(status, &item.child("status"), allowed));
        let other = if kind == "Approved" { "Denied" } else { "Approved" };
        if matches!(kind, "Approved" | "Denied") && seen.contains(&other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(Error::invalid(path.clone(), kind, detail));
        }
        if seen.contains(&kind) {
            errors.push(Error::duplicate(item.child("type"), kind));
        }
        seen.push(kind);
    }
    errors
}

fn update(new: &Document, old: &Document, subresource: &str) -> Errors {
    let path = Path::new("status");
    let mut errors = Errors::new();
    let of = |doc: &Document, kind: &str| -> Vec<Value> {
        doc.list_at("/status/conditions").iter().filter(|c| text(c, "type") == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        let (now, before) = (of(new, kind), of(old, kind));
        let what = match now.len().cmp(&before.len()) {
            std::cmp::Ordering::Less => "remove",
            _ if subresource == "approval" || kind == "Failed" => continue,
            std::cmp::Ordering::Greater => "add",
            std::cmp::Ordering::Equal if !same(Some(&now.into()), Some(&before.into())) => "modify",
            std::cmp::Ordering::Equal => continue,
        };
        let detail = format!("updates may not {what} a condition of type {kind:?}");
        errors.push(Error::forbidden(path.child("conditions"), detail));
    }
    let certificate = |doc: &Document| doc.str_at("/status/certificate").to_owned();
    if certificate(new) != certificate(old) {
        let detail = match subresource {
            "status" if certificate(old).is_empty() => return errors,
            "status" => "updates may not modify existing certificate content",
            _ => "updates may not set certificate content",
        };
        errors.push(Error::forbidden(path.child("certificate"), detail));
    }
    errors
}
