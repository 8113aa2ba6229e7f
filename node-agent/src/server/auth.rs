//! Who asks, and whether they may: client certificates of the cluster's CA or bearer tokens, then RBAC by the API
//! server's own reviews. Nobody is trusted for want of an answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Body, text};
use crate::Config;

/// How long an answer of the API server holds, and how many are kept.
const YES_FOR: Duration = Duration::from_secs(60);
const NO_FOR: Duration = Duration::from_secs(5);
const KEPT: usize = 1024;

/// A name and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct User {
    name: String,
    groups: Vec<String>,
}

/// The subject of a verified client certificate.
pub(super) fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificates?.first()?).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    Some(User { name, groups })
}

type Question = (User, &'static str, &'static str);

/// Asks the API server, and remembers its answers for a while.
pub(crate) struct Judge {
    client: kube::Client,
    node: String,
    answers: Mutex<HashMap<Question, (Instant, bool)>>,
    tokens: Mutex<HashMap<String, (Instant, Option<User>)>>,
}

impl Judge {
    pub(super) fn new(client: kube::Client, config: &Config) -> Self {
        Self { client, node: config.node_name.clone(), answers: Mutex::default(), tokens: Mutex::default() }
    }

    /// `Ok`, or the refusal to send.
    pub(super) async fn allows(&self, peer: Option<&User>, request: &Request<Incoming>) -> Result<(), Response<Body>> {
        let user = match peer {
            Some(user) => Some(user.clone()),
            None => self.bearer(request).await,
        };
        let user = user.ok_or_else(|| text(StatusCode::UNAUTHORIZED, "Unauthorized"))?;
        if user.groups.iter().any(|g| g == "system:masters") {
            return Ok(());
        }
        let (verb, part) = (verb(request.method()), part(request.uri().path()));
        if self.may(&user, verb, part).await {
            return Ok(());
        }
        let message = format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{part}])", user.name);
        Err(text(StatusCode::FORBIDDEN, message))
    }

    async fn may(&self, user: &User, verb: &'static str, part: &'static str) -> bool {
        let question = (user.clone(), verb, part);
        let known = self.answers.lock().get(&question).copied();
        if let Some((at, yes)) = known
            && at.elapsed() < if yes { YES_FOR } else { NO_FOR }
        {
            return yes;
        }
        let Some(yes) = self.ask(user, verb, part).await else { return false };
        remember(&mut self.answers.lock(), question, (Instant::now(), yes));
        yes
    }

    async fn ask(&self, user: &User, verb: &str, part: &str) -> Option<bool> {
        let attributes = ResourceAttributes {
            name: Some(self.node.clone()),
            resource: Some("nodes".into()),
            subresource: Some(part.into()),
            verb: Some(verb.into()),
            version: Some("v1".into()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            groups: Some(user.groups.clone()),
            resource_attributes: Some(attributes),
            user: Some(user.name.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer = Api::<SubjectAccessReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        answer
            .inspect_err(|error| tracing::warn!(%error, "no answer to an access review"))
            .ok()?
            .status
            .map(|s| s.allowed)
    }

    async fn bearer(&self, request: &Request<Incoming>) -> Option<User> {
        let header = request.headers().get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let token = header.strip_prefix("Bearer ")?.trim().to_owned();
        let known = self.tokens.lock().get(&token).cloned();
        if let Some((at, user)) = known
            && at.elapsed() < NO_FOR
        {
            return user;
        }
        let spec = TokenReviewSpec { token: token.clone(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await.ok()?;
        let status = answer.status?;
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let user = user.map(|u| User { name: u.username.unwrap_or_default(), groups: u.groups.unwrap_or_default() });
        remember(&mut self.tokens.lock(), token, (Instant::now(), user.clone()));
        user
    }
}

fn remember<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: V) {
    if map.len() >= KEPT {
        map.clear();
    }
    map.insert(key, value);
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The subresource of `nodes` that guards a path (kubelet's authorizer).
fn part(path: &str) -> &'static str {
    match path.trim_matches('/').split('/').next() {
        Some("stats") => "stats",
        Some("metrics") => "metrics",
        Some("logs") => "log",
        _ => "proxy",
    }
}
