//! `spec.conversion`: who converts objects between versions, and how it is reached.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::cell;
use super::super::webhooks::{service_errors, url};
use crate::Document;
use crate::field::{Error, Errors, Path};
use crate::tree::{get, object, set, text, texts};
use crate::validation::{invalid_each, one_of, text as names};

const STRATEGIES: [&str; 2] = ["None", "Webhook"];
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// Upstream names these fields as its internal type does: `webhookClientConfig`, without a `webhook` above it.
pub(super) fn validate(spec: &Value, old: Option<&Document>, path: &Path) -> Errors {
    let Some(conversion) = get(spec, "conversion") else { return Errors::new() };
    let strategy = text(conversion, "strategy");
    let mut errors = one_of(strategy, &path.child("strategy"), &STRATEGIES);
    let webhook = get(conversion, "webhook").unwrap_or(&Value::Null);
    let (config, place) = (get(webhook, "clientConfig"), path.child("webhookClientConfig"));
    let versions = texts(webhook, "conversionReviewVersions");
    let versions_place = path.child("conversionReviewVersions");
    if strategy == "Webhook" {
        match config {
            None => errors.push(Error::required(place, "required when strategy is set to Webhook")),
            Some(config) => errors.extend(client(config, old, &place)),
        }
        errors.extend(review_versions(&versions, knows_one(old), &versions_place));
        return errors;
    }
    let why = "should not be set when strategy is not set to Webhook";
    errors.extend(config.map(|_| Error::forbidden(place, why)));
    errors.extend((!versions.is_empty()).then(|| Error::forbidden(versions_place, why)));
    errors
}

fn client(config: &Value, old: Option<&Document>, path: &Path) -> Errors {
    let mut errors = match (get(config, "url"), get(config, "service")) {
        (Some(_), None) => url(text(config, "url"), &path.child("url")),
        (None, Some(service)) => {
            // Upstream hands name and namespace over the wrong way round; what is said of one is said of the other.
            let mut swapped = service.clone();
            set(&mut swapped, "name", text(service, "namespace"));
            set(&mut swapped, "namespace", text(service, "name"));
            service_errors(&swapped, &path.child("service"))
        }
        _ => vec![Error::required(path.clone(), "exactly one of url or service is required")],
    };
    let bundle = text(config, "caBundle");
    if must_be_usable(old)
        && let Some(fault) = ca_bundle_fault(bundle)
    {
        errors.push(Error::invalid(path.child("caBundle"), bundle, fault));
    }
    errors
}

/// Until a definition is established its bundle may be anything; later, only one that was unusable before may be.
fn must_be_usable(old: Option<&Document>) -> bool {
    let fault = |old: &Document| ca_bundle_fault(old.str_at("/spec/conversion/webhook/clientConfig/caBundle"));
    old.is_some_and(|old| cell::is_true(old, "Established") && fault(old).is_none())
}

/// Why a `caBundle` (in base64) is none, in upstream's words. None at all is good: then the host's certificates count.
pub fn ca_bundle_fault(bundle: &str) -> Option<String> {
    let bytes = STANDARD.decode(bundle).unwrap_or_default();
    let pem = String::from_utf8_lossy(&bytes);
    let mut certificates = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let is_one = |rest: &str| {
        let body: String =
            rest.split("-----END CERTIFICATE-----").next().unwrap_or_default().split_whitespace().collect();
        // A certificate is an ASN.1 sequence.
        STANDARD.decode(body).is_ok_and(|der| der.first() == Some(&0x30))
    };
    let why = match (pem.trim().is_empty(), certificates.any(is_one), pem.contains("-----BEGIN ")) {
        (true, ..) | (_, true, _) => return None,
        (_, _, true) => "no valid certificate authority data seen",
        (_, _, false) => "unable to parse bytes as PEM block",
    };
    Some(format!("unable to load root certificates: {why}"))
}

/// Whether the stored definition names a version of ConversionReview that is known, or none: then the new one must too.
fn knows_one(old: Option<&Document>) -> bool {
    let versions = old.map_or(&[][..], |old| old.list_at("/spec/conversion/webhook/conversionReviewVersions"));
    versions.is_empty() || versions.iter().any(|version| REVIEWS.iter().any(|known| version == known))
}

fn review_versions(versions: &[&str], must_be_known: bool, path: &Path) -> Errors {
    if versions.is_empty() {
        return vec![Error::required(path.clone(), "")];
    }
    let mut errors = Errors::new();
    for (at, version) in versions.iter().enumerate() {
        match versions.iter().take(at).any(|earlier| earlier == version) {
            true => errors.push(Error::invalid(path.index(at), *version, "duplicate version")),
            false => errors.extend(invalid_each(&path.index(at), *version, names::label_1035(version))),
        }
    }
    if must_be_known && !versions.iter().any(|version| REVIEWS.contains(version)) {
        let why = format!("must include at least one of {}", REVIEWS.join(", "));
        errors.push(Error::invalid(path.clone(), json!(versions), why));
    }
    errors
}

/// Without a `conversion`, the strategy is `None`; a service's port is 443.
pub(super) fn default(spec: &mut Value) {
    if get(spec, "conversion").is_none() {
        set(object(spec, "conversion"), "strategy", "None");
    }
    if let Some(service) = spec.pointer_mut("/conversion/webhook/clientConfig/service").filter(|s| s.is_object()) {
        crate::tree::fill(service, "port", 443);
    }
}
