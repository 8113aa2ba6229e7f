//! Certificate requests: approved for kubelets that may have them, signed once approved, and cleaned up
//! (`pkg/controller/certificates`).

mod request;

use jiff::SignedDuration;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest as Csr, CertificateSigningRequestCondition as Condition,
};
use k8s_openapi::api::core::v1::Node;
use reconcile::resource::name_of;
use reconcile::{
    Access, Answer, Change, Controller, Decider, Effect, Key, Live, Outcome, PatchKind, Signing, Target, Timestamp,
    Told, Watch, World, conditions,
};
use serde_json::json;

use request::Request;

const APPROVER: &str = "certificatesigningrequest-approving-controller";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// When a request is looked at again whose node has not said its addresses.
const ADDRESSES_WITHIN: SignedDuration = SignedDuration::from_secs(2);
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// How long requests are kept: finished or denied ones, and those that nobody answered.
const FINISHED_STAYS: SignedDuration = SignedDuration::from_hours(1);
const PENDING_STAYS: SignedDuration = SignedDuration::from_hours(24);

fn condition<'a>(csr: &'a Csr, type_: &str) -> Option<&'a Condition> {
    csr.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == type_)
}

fn is_issued(csr: &Csr) -> bool {
    csr.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

/// Approves the requests of kubelets.
pub struct Approver;

impl Controller for Approver {
    fn name(&self) -> &'static str {
        APPROVER
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Csr>(), Watch::of::<Node>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        let own = change.key_of::<Csr>();
        // A kubelet's serving certificate waits for the addresses of its Node.
        let node = change.now::<Node>().and_then(|n| n.metadata.name.as_deref());
        let waits = |csr: &&Csr, node: &str| {
            csr.spec.signer_name == KUBELET_SERVING
                && csr.spec.username.as_deref() == Some(&format!("system:node:{node}"))
                && condition(csr, "Approved").is_none()
        };
        let waiting = node.into_iter().flat_map(|node| world.list::<Csr>().filter(move |csr| waits(csr, node)));
        own.into_iter().chain(waiting.map(|csr| Key::of::<Csr>(name_of(&csr.metadata)))).collect()
    }
}

impl Decider for Approver {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(csr) = world.get::<Csr>(&key.object) else {
            return Outcome::nothing("Gone", "the request does not exist");
        };
        if is_issued(csr) || condition(csr, "Approved").is_some() || condition(csr, "Denied").is_some() {
            return Outcome::nothing("Decided", "the request is approved or denied");
        }
        let Some(request) = Request::parse(&csr.spec.request.0) else {
            return Outcome::nothing("Unreadable", "the request is not a PKCS#10 request in PEM");
        };
        let usages = csr.spec.usages.as_deref().unwrap_or_default();
        match csr.spec.signer_name.as_str() {
            KUBELET_CLIENT if request.is_kubelet_client(usages) => client(world, key, csr, &request, now),
            KUBELET_SERVING if request.is_kubelet_serving(usages) => serving(world, csr, &request, now),
            _ => Outcome::nothing("NotOurs", "people approve such requests"),
        }
    }
}

/// A kubelet's client certificate: for those who may create such requests for themselves, or for any node.
fn client(world: &World, key: &Key, csr: &Csr, request: &Request, now: Timestamp) -> Outcome<Effect> {
    let own = csr.spec.username.as_deref() == Some(request.common_name.as_str());
    let own =
        own.then_some(("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."));
    let any = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
    let mut tried = Vec::new();
    for (subresource, message) in own.into_iter().chain([any]) {
        let question = Live::Access(Access {
            user: csr.spec.username.clone().unwrap_or_default(),
            groups: csr.spec.groups.clone().unwrap_or_default(),
            verb: "create",
            group: "certificates.k8s.io",
            resource: "certificatesigningrequests",
            subresource,
        });
        match world.live(APPROVER, key, &question) {
            None => return Outcome { read_live: vec![question], ..Outcome::default() },
            Some(Answer::Access(true)) => return approve(csr, message, now),
            Some(Answer::Failed(why)) => {
                let mut outcome = Outcome::nothing("Unanswered", why.clone());
                outcome.wake(now + ADDRESSES_WITHIN);
                return outcome;
            }
            Some(_) => tried.push(subresource),
        }
    }
    Outcome::nothing("NotAllowed", format!("recognized as {tried:?} but subject access review was not approved"))
}

/// A kubelet's serving certificate: for the node itself, for addresses that it and no other node has.
fn serving(world: &World, csr: &Csr, request: &Request, now: Timestamp) -> Outcome<Effect> {
    let user = csr.spec.username.as_deref().unwrap_or_default();
    let Some(name) = user.strip_prefix("system:node:").filter(|_| request.common_name == user) else {
        return Outcome::nothing("NotItself", "a node may only ask for itself");
    };
    let addresses = |node: &Node| -> Vec<String> {
        let listed = node.status.as_ref().and_then(|s| s.addresses.as_ref()).into_iter().flatten();
        listed.map(|a| a.address.clone()).chain(node.metadata.name.clone()).collect()
    };
    let has = |node: &Node, name: &str| addresses(node).iter().any(|a| a == name);
    let is_own = |n: &Node| n.metadata.name.as_deref() == Some(name);
    let own = world.list::<Node>().find(|n| is_own(n));
    if !own.is_some_and(|n| request.names.iter().all(|wanted| has(n, wanted))) {
        // A new node asks before it has said what its addresses are.
        let mut outcome = Outcome::nothing("UnknownAddress", "the node does not have all of the addresses asked for");
        outcome.wake(now + ADDRESSES_WITHIN);
        return outcome;
    }
    let taken = |n: &&Node| !is_own(n) && request.names.iter().any(|wanted| has(n, wanted));
    if let Some(other) = world.list::<Node>().find(taken) {
        let other = other.metadata.name.as_deref().unwrap_or_default();
        return Outcome::nothing("AddressTaken", format!("node {other} has one of the addresses too"));
    }
    approve(csr, "Auto approving kubelet serving certificate for the node's own addresses.", now)
}

fn approve(csr: &Csr, message: &str, now: Timestamp) -> Outcome<Effect> {
    let mut outcome = Outcome::nothing("Approved", message);
    outcome.effect(Effect::Patch {
        target: Target::of(csr),
        subresource: "approval",
        kind: PatchKind::Merge,
        body: with_condition(csr, "Approved", "AutoApproved", message, now),
        told: Told::default(),
    });
    outcome
}

/// A patch that adds a condition to those there are, if nobody wrote the request in between.
fn with_condition(csr: &Csr, type_: &str, reason: &str, message: &str, now: Timestamp) -> serde_json::Value {
    let there = csr.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut list: Vec<serde_json::Value> = there.map(|c| json!(c)).collect();
    list.push(json!({
        "type": type_, "status": "True", "reason": reason, "message": message, "lastUpdateTime": conditions::time(now),
    }));
    json!({"metadata": {"resourceVersion": csr.metadata.resource_version}, "status": {"conditions": list}})
}

/// Signs what is approved.
pub struct Signer;

impl Controller for Signer {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Csr>()]
    }

    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        change.key_of::<Csr>().into_iter().collect()
    }
}

impl Decider for Signer {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(csr) = world.get::<Csr>(&key.object) else {
            return Outcome::nothing("Gone", "the request does not exist");
        };
        let approved = condition(csr, "Approved").is_some() && condition(csr, "Denied").is_none();
        if !approved || is_issued(csr) || condition(csr, "Failed").is_some() {
            return Outcome::nothing("NotWaiting", "the request is not approved, or answered");
        }
        let usages = csr.spec.usages.clone().unwrap_or_default();
        let request = Request::parse(&csr.spec.request.0);
        let fits = |is: fn(&Request, &[String]) -> bool| request.as_ref().is_some_and(|r| is(r, &usages));
        let valid = match csr.spec.signer_name.as_str() {
            CLIENT => fits(Request::is_client),
            KUBELET_CLIENT => fits(Request::is_kubelet_client),
            KUBELET_SERVING => fits(Request::is_kubelet_serving),
            _ => return Outcome::nothing("NotOurs", "another signer signs this"),
        };
        if !valid {
            return refuse(csr, now);
        }
        let mut outcome = Outcome::nothing("Signing", "the request is approved");
        outcome.effect(Effect::Sign(Box::new(Signing {
            target: Target::of(csr),
            resource_version: csr.metadata.resource_version.clone().unwrap_or_default(),
            signer: csr.spec.signer_name.clone(),
            request_pem: csr.spec.request.0.clone(),
            usages,
            expiration_seconds: csr.spec.expiration_seconds,
            now,
        })));
        outcome
    }
}

fn refuse(csr: &Csr, now: Timestamp) -> Outcome<Effect> {
    const REASON: &str = "SignerValidationFailure";
    let message = format!("the request does not fit its signer {}", csr.spec.signer_name);
    let mut outcome = Outcome::nothing(REASON, &message);
    outcome.effect(Effect::patch_status(csr, with_condition(csr, "Failed", REASON, &message, now)));
    outcome
}

/// Deletes old requests.
pub struct Cleaner;

impl Controller for Cleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Csr>()]
    }

    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        change.key_of::<Csr>().into_iter().collect()
    }
}

impl Decider for Cleaner {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(csr) = world.get::<Csr>(&key.object) else {
            return Outcome::nothing("Gone", "the request does not exist");
        };
        let ended = ["Denied", "Failed"].iter().any(|t| condition(csr, t).is_some());
        let finished = ended || (is_issued(csr) && condition(csr, "Approved").is_some());
        let stays = if finished { FINISHED_STAYS } else { PENDING_STAYS };
        let updated = csr.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let updated = updated.filter_map(|c| c.last_update_time.as_ref()).map(|t| t.0).max();
        let from = updated.or(csr.metadata.creation_timestamp.as_ref().map(|t| t.0)).unwrap_or(now);
        let due = from.saturating_add(stays).unwrap_or(now);
        let mut outcome = Outcome::nothing("Kept", "the request is not old");
        if due > now {
            outcome.wake(due);
            return outcome;
        }
        outcome.because("Old", "the request is old");
        outcome.effect(Effect::delete(csr));
        outcome
    }
}
