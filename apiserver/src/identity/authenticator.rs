//! From a certificate or a token to a user.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::claims::Claims;
use super::jwt::Signer;
use super::{Error, bootstrap_token, front_proxy, tls};
use crate::attributes::User;
use crate::parts::Authenticator;
use crate::view::View;

/// Tokens whose signature is known to be good, so that it is computed once and not with each request.
const REMEMBERED: usize = 4096;

/// Says who a certificate or a token belongs to.
pub struct Tokens {
    signer: Signer,
    verifier: Arc<dyn ClientCertVerifier>,
    front_proxies: Arc<dyn ClientCertVerifier>,
    verified: Mutex<BTreeMap<[u8; 32], Arc<Claims>>>,
}

/// Whose token, and the audiences it is for.
pub(super) struct Bearer {
    pub(super) user: User,
    pub(super) audiences: Vec<String>,
}

impl Tokens {
    /// For tokens of a signer, and certificates of the cluster's CA and of that of front proxies (PEM).
    pub fn new(signer: Signer, ca: &str, front_proxy_ca: &str) -> Result<Self, Error> {
        let (verifier, front_proxies) = (verifier(ca)?, verifier(front_proxy_ca)?);
        Ok(Self { signer, verifier, front_proxies, verified: Mutex::default() })
    }

    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The token's owner for any of the audiences.
    pub(super) fn bearer(&self, token: &str, wanted: &[String], view: &dyn View, now: Timestamp) -> Option<Bearer> {
        if let Some(user) = bootstrap_token::user(token, view, now) {
            return Some(Bearer { user, audiences: wanted.to_vec() });
        }
        let claims = self.claims(token)?;
        let audiences: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        let held = !audiences.is_empty() && claims.hold(view, now);
        held.then(|| Bearer { user: claims.user(), audiences })
    }

    /// The audience of this server.
    pub(super) fn audiences(&self) -> Vec<String> {
        vec![self.signer.issuer().to_owned()]
    }

    fn claims(&self, token: &str) -> Option<Arc<Claims>> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(claims) = self.verified.lock().get(&key) {
            return Some(Arc::clone(claims));
        }
        let claims: Claims = serde_json::from_value(self.signer.verify(token)?).ok()?;
        let claims = Arc::new(claims);
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(key, Arc::clone(&claims));
        Some(claims)
    }
}

impl Authenticator for Tokens {
    fn certificate(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Option<User> {
        user(verified(self.verifier.as_ref(), chain, now)?)
    }

    fn is_front_proxy(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        let named = verified(self.front_proxies.as_ref(), chain, now).and_then(|certificate| user(certificate));
        named.is_some_and(|user| front_proxy::NAMES.contains(&user.name.as_str()))
    }

    fn token(&self, token: &str, view: &dyn View, now: Timestamp) -> Option<User> {
        Some(self.bearer(token, &self.audiences(), view, now)?.user)
    }
}

fn verifier(ca: &str) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let roots = Arc::new(tls::roots(ca)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider()).build();
    verifier.map_err(|e| Error::Pem(e.to_string()))
}

/// The first certificate of a chain that leads to whom the verifier trusts.
fn verified<'c>(
    verifier: &dyn ClientCertVerifier,
    chain: &'c [CertificateDer<'_>],
    now: Timestamp,
) -> Option<&'c CertificateDer<'c>> {
    let (first, rest) = chain.split_first()?;
    let since = Duration::from_secs(u64::try_from(now.as_second()).ok()?);
    verifier.verify_client_cert(first, rest, UnixTime::since_unix_epoch(since)).ok()?;
    Some(first)
}

/// The common name is the user, the organizations are the groups.
fn user(der: &[u8]) -> Option<User> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().ok().map(str::to_owned);
    let name = parsed.subject().iter_common_name().next().and_then(text).filter(|name| !name.is_empty())?;
    let groups = parsed.subject().iter_organization().filter_map(text).collect();
    let print: String = digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let id = ("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={print}")]);
    Some(User { name, uid: String::new(), groups, extra: BTreeMap::from([id]) })
}
