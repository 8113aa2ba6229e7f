//! What a request takes from the quotas of its namespace (`plugin/resourcequota/controller.go`, CheckRequest).

use std::borrow::Borrow;

use super::amounts::{self, Amounts, increase, mask, read, show};
use super::{counts, in_scopes, is_ignored, pod, usage};
use crate::{Document, GroupResource, Timestamp};

/// A write that may need more.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What is written.
    pub resource: &'a GroupResource,
    /// Its subresource, empty for the object itself.
    pub subresource: &'a str,
    /// The object as it will be.
    pub object: &'a Document,
    /// The object as it is; `None`: it is created.
    pub old: Option<&'a Document>,
    /// The request's time.
    pub now: Timestamp,
}

/// A quota with what it will hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Charged {
    /// Which of the given ones.
    pub index: usize,
    /// Its new `status.used`.
    pub used: Amounts,
}

impl Request<'_> {
    /// Whether a write of this kind can need more at all.
    pub fn may_charge(&self) -> bool {
        let creates = self.old.is_none();
        match (self.resource.group.as_str(), self.resource.resource.as_str(), self.subresource) {
            _ if is_ignored(self.resource) => false,
            ("", "pods", "resize") => !creates,
            ("", "pods", "") => {
                creates || self.old.is_some_and(|old| pod::terminating(old) != pod::terminating(self.object))
            }
            ("", "services" | "persistentvolumeclaims", "") => true,
            ("", "persistentvolumeclaims", "status") => !creates,
            (_, _, "") => creates,
            _ => false,
        }
    }

    fn concerns(&self, quota: &Document, object: &Document) -> bool {
        let hard = read(quota.at("/status/hard"));
        hard.keys().any(|name| counts(self.resource, name)) && in_scopes(quota, self.resource, object)
    }
}

/// What each quota will hold after the request, for those that change; or why it may not be, in upstream's words.
pub fn charge<Q: Borrow<Document>>(quotas: &[Q], request: &Request<'_>) -> Result<Vec<Charged>, String> {
    if !request.may_charge() {
        return Ok(Vec::new());
    }
    let concerned: Vec<(usize, &Document)> = quotas
        .iter()
        .map(Borrow::borrow)
        .enumerate()
        .filter(|(_, quota)| request.concerns(quota, request.object))
        .collect();
    for (_, quota) in &concerned {
        ready(quota, request)?;
    }
    let wanted = usage(request.resource, request.object, request.now);
    let negative: Vec<&str> = wanted.iter().filter(|(_, q)| q.sign() < 0).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() && !concerned.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    let before = request.old.map(|old| usage(request.resource, old, request.now));
    let mut charged = Vec::new();
    for (index, quota) in concerned {
        let counted_before = before.as_ref().filter(|_| request.old.is_some_and(|old| request.concerns(quota, old)));
        let more = increase(&wanted, counted_before.unwrap_or(&Amounts::new()));
        if let Some(used) = fits(quota, &more, request.subresource == "status")? {
            charged.push(Charged { index, used });
        }
    }
    Ok(charged)
}

/// The object says what the quota wants, and the quota has been counted.
fn ready(quota: &Document, request: &Request<'_>) -> Result<(), String> {
    let hard = read(quota.at("/status/hard"));
    let names: Vec<&str> = hard.keys().map(String::as_str).filter(|name| counts(request.resource, name)).collect();
    let is_pod = request.resource.group.is_empty() && request.resource.resource == "pods";
    if let Some(missing) = pod::missing(request.object, names.iter().copied()).filter(|_| is_pod) {
        return Err(format!("failed quota: {}: {missing}", quota.name()));
    }
    let used = read(quota.at("/status/used"));
    match names.iter().all(|name| used.contains_key(*name)) {
        true => Ok(()),
        false => Err(format!("status unknown for quota: {}, resources: {}", quota.name(), names.join(","))),
    }
}

/// What the quota will hold; `None` where nothing changes. A status that grew by itself is never refused.
fn fits(quota: &Document, more: &Amounts, always: bool) -> Result<Option<Amounts>, String> {
    if more.is_empty() {
        return Ok(None);
    }
    let (hard, used) = (read(quota.at("/status/hard")), read(quota.at("/status/used")));
    let requested = mask(more, |name| hard.contains_key(name));
    if requested.is_empty() {
        return Ok(None);
    }
    let mut after = used.clone();
    amounts::add(&mut after, &requested);
    let exceeds = |name: &str| {
        requested.contains_key(name) && matches!((after.get(name), hard.get(name)), (Some(a), Some(h)) if a > h)
    };
    if !always && hard.keys().any(|name| exceeds(name)) {
        let only = |amounts: &Amounts| show(&mask(amounts, exceeds));
        let (requested, used, limited) = (only(&requested), only(&used), only(&hard));
        let name = quota.name();
        return Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"));
    }
    Ok(Some(after))
}
