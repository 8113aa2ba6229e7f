//! Answers to challenges: a password, or a token that a password, an identity or nobody is given (distribution's token
//! specification, and OAuth 2 for identities).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::{Endpoint, PATIENCE, answer, chain};
use crate::options::Auth;
use crate::{Error, Result};

/// Who we are, to an OAuth 2 server.
const CLIENT_ID: &str = "trimtab";

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
}

/// What a token is asked for with.
struct Wanted<'a> {
    realm: Url,
    service: Option<&'a str>,
    scope: Option<&'a str>,
}

impl Endpoint {
    /// Answers a challenge, for the requests that follow.
    pub(super) async fn authorize(&self, response: &Response, what: &str) -> Result<()> {
        let refused = || Error::Unauthorized(what.to_owned());
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let answer = match (challenge::best(headers).ok_or_else(refused)?, &self.auth) {
            // It was sent already.
            (_, Auth::Bearer(_)) => return Err(refused()),
            (Challenge::Basic, Auth::Basic { username, password }) => basic(username, password),
            (Challenge::Basic, _) => return Err(refused()),
            (Challenge::Bearer { realm, service, scope }, auth) => {
                let realm = self.realm(&realm, what)?;
                let wanted = Wanted { realm, service: service.as_deref(), scope: scope.as_deref() };
                format!("Bearer {}", self.token(&wanted, auth, what).await?)
            }
        };
        let mut value = header(&answer)?;
        value.set_sensitive(true);
        if let Ok(mut held) = self.authorization.lock() {
            *held = Some(value);
        }
        Ok(())
    }

    /// Where tokens are given out. A password goes there: over HTTPS, if it is wanted over HTTPS.
    fn realm(&self, text: &str, what: &str) -> Result<Url> {
        let url = Url::parse(text).map_err(|e| Error::Malformed(format!("{what}: realm {text:?}: {e}")))?;
        match (url.scheme(), self.base.scheme()) {
            ("https", _) | ("http", "http") => Ok(url),
            _ => Err(Error::Malformed(format!("{what}: realm {text:?} is not HTTPS"))),
        }
    }

    async fn token(&self, wanted: &Wanted<'_>, auth: &Auth, what: &str) -> Result<String> {
        let mut url = wanted.realm.clone();
        let client = if self.is_own(&url) { &self.client } else { &self.other_client };
        let fields = [("service", wanted.service), ("scope", wanted.scope)];
        let fields = fields.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
        let request = match auth {
            Auth::Identity(token) => {
                let mut form = Url::parse("form:").map_err(|e| Error::Malformed(e.to_string()))?;
                let rest = [("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("refresh_token", token)];
                form.query_pairs_mut().extend_pairs(fields.chain(rest));
                let kind = "application/x-www-form-urlencoded";
                client.post(url).header("content-type", kind).body(form.query().unwrap_or_default().to_owned())
            }
            auth => {
                url.query_pairs_mut().extend_pairs(fields);
                match auth {
                    Auth::Basic { username, password } => {
                        client.get(url).header(AUTHORIZATION, header(&basic(username, password))?)
                    }
                    _ => client.get(url),
                }
            }
        };
        let failed = |why: String| Error::Transport(format!("{what}: a token from {}: {why}", wanted.realm));
        let answer = tokio::time::timeout(PATIENCE, request.send()).await;
        let answer = answer.map_err(|_| failed(format!("no answer within {PATIENCE:?}")))?;
        let response = answer.map_err(|e| failed(chain(&e)))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Error::Unauthorized(what.to_owned())),
            status => return Err(failed(status.to_string())),
        }
        let bytes = answer::bounded(response, 1 << 20, what).await?;
        let granted = serde_json::from_slice::<Granted>(&bytes).ok();
        let token = granted.and_then(|granted| granted.token.or(granted.access_token));
        token.filter(|token| !token.is_empty()).ok_or_else(|| failed("the answer holds none".to_owned()))
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// A header's value; what a header cannot hold is no credential.
pub(super) fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Error::Malformed("credentials that no header can hold".to_owned()))
}
