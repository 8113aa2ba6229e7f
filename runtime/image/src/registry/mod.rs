//! A registry over HTTP(S) (OCI distribution-spec): requests with their credentials, redirects and repetitions.
//!
//! Credentials go to the host they are for and nowhere else. A redirect is followed by us, without them where it leads to
//! another origin, and never from HTTPS to HTTP.

use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Body, Client, Method, Response, StatusCode, Url};

use crate::options::{Auth, Host, Registries};
use crate::reference::Reference;
use crate::{Error, Result};

mod answer;
mod challenge;
mod content;
mod referrers;
mod token;
mod upload;

pub(crate) use answer::chain;
pub(crate) use content::Arriving;
pub(crate) use referrers::MAX_REFERRERS;

/// How often something is asked for before its failure counts.
pub(crate) const ATTEMPTS: u32 = 3;
/// Redirects of one request.
const MAX_HOPS: u32 = 5;
/// The longest a registry can make us wait, and what we wait where it says nothing.
const MAX_WAIT: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How long a registry may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a body may take: this many bytes a second are the least that is put up with.
const SLOWEST_BYTES_PER_S: u64 = 16 << 10;

/// The places an image can be had from: mirrors first, the registry itself last.
pub(crate) struct Registry {
    pub(crate) endpoints: Vec<Endpoint>,
}

/// One place, for one repository.
pub(crate) struct Endpoint {
    /// `https://host[:port]/v2/repository/`.
    base: Url,
    client: Client,
    /// For other hosts, which our certificates are not for.
    other_client: Client,
    auth: Auth,
    /// What the last challenge was answered with.
    authorization: Mutex<Option<HeaderValue>>,
    plain_http: Vec<String>,
    /// The registry that a mirror is asked to stand for.
    namespace: Option<String>,
}

/// One request.
pub(crate) struct Request<'a> {
    method: Method,
    url: Url,
    headers: HeaderMap,
    /// Makes the body, again for each repetition.
    body: Option<&'a (dyn Fn() -> Result<Body> + Sync)>,
    /// How long the beginning of an answer may take.
    patience: Duration,
    /// What errors speak of.
    what: &'a str,
}

/// Why there is no answer.
struct NoAnswer {
    why: String,
    /// Whether asking again may help.
    again: bool,
}

impl Registry {
    /// Where to pull from.
    pub(crate) fn to_pull(reference: &Reference, auth: &Auth, registries: &Registries) -> Result<Self> {
        let mirrors = registries.hosts.get(&reference.registry).map(|host| host.mirrors.as_slice()).unwrap_or_default();
        let (mut endpoints, shared) = (Vec::new(), client(None)?);
        for mirror in mirrors {
            endpoints.push(Endpoint::mirror(mirror, reference, registries, &shared)?);
        }
        endpoints.push(Endpoint::origin(reference, auth, registries, &shared)?);
        Ok(Self { endpoints })
    }
}

impl Endpoint {
    /// Where to push to.
    pub(crate) fn to_push(reference: &Reference, auth: &Auth, registries: &Registries) -> Result<Self> {
        Self::origin(reference, auth, registries, &client(None)?)
    }

    /// The registry that a reference names.
    fn origin(reference: &Reference, auth: &Auth, registries: &Registries, shared: &Client) -> Result<Self> {
        let name = &reference.registry;
        let host = if name == "docker.io" { "registry-1.docker.io" } else { name };
        let scheme = if registries.plain_http.contains(name) { "http" } else { "https" };
        let known = registries.hosts.get(name);
        let auth = match auth {
            Auth::Anonymous => known.and_then(|known| known.auth.clone()).unwrap_or(Auth::Anonymous),
            given => given.clone(),
        };
        let base = format!("{scheme}://{host}/v2/{}/", reference.repository);
        Self::new(&base, auth, known, registries, None, shared)
    }

    fn mirror(url: &str, reference: &Reference, registries: &Registries, shared: &Client) -> Result<Self> {
        let bad = || Error::Malformed(format!("mirror {url:?}: not a URL of http or https"));
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(bad)?;
        let name = match (parsed.host_str(), parsed.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(bad()),
        };
        let path = parsed.path().trim_end_matches('/');
        let api = if path.starts_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
        let base = format!("{}://{name}{api}/{}/", parsed.scheme(), reference.repository);
        let known = registries.hosts.get(&name);
        let auth = known.and_then(|known| known.auth.clone()).unwrap_or(Auth::Anonymous);
        Self::new(&base, auth, known, registries, Some(reference.registry.clone()), shared)
    }

    fn new(
        base: &str,
        auth: Auth,
        known: Option<&Host>,
        registries: &Registries,
        namespace: Option<String>,
        shared: &Client,
    ) -> Result<Self> {
        let base = Url::parse(base).map_err(|e| Error::Malformed(format!("{base}: {e}")))?;
        let other_client = shared.clone();
        let own = known.filter(|known| known.ca_pem.is_some() || known.client_pem.is_some());
        let client = own.map_or_else(|| Ok(other_client.clone()), |known| client(Some(known)))?;
        let given = match &auth {
            Auth::Bearer(token) => Some(token::header(&format!("Bearer {token}"))?),
            _ => None,
        };
        let plain_http = registries.plain_http.clone();
        Ok(Self { base, client, other_client, auth, authorization: Mutex::new(given), plain_http, namespace })
    }

    fn request<'a>(&self, method: Method, path: &str, what: &'a str) -> Result<Request<'a>> {
        let mut url = self.base.join(path).map_err(|e| Error::Malformed(format!("{what}: {e}")))?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(Request { method, url, headers: HeaderMap::new(), body: None, patience: PATIENCE, what })
    }

    /// Asks, with credentials where they are wanted, again where that may help, and where a redirect leads to.
    async fn send(&self, request: &Request<'_>) -> Result<Response> {
        let (mut url, mut hops, mut attempt, mut challenged) = (request.url.clone(), 0, 1, false);
        loop {
            let response = match self.once(request, &url).await {
                Ok(response) => response,
                Err(NoAnswer { again: true, .. }) if attempt < ATTEMPTS => {
                    tokio::time::sleep(FIRST_WAIT * 2u32.pow(attempt - 1)).await;
                    attempt += 1;
                    continue;
                }
                Err(NoAnswer { why, .. }) => return Err(Error::Transport(format!("{}: {why}", request.what))),
            };
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !challenged && self.is_own(&url) {
                challenged = true;
                self.authorize(&response, request.what).await?;
            } else if is_redirect(status) && request.body.is_none() {
                hops += 1;
                url = self.redirected(&url, &response, hops, request.what)?;
            } else if is_passing(status) && attempt < ATTEMPTS {
                tokio::time::sleep(wait(&response, attempt)).await;
                (url, hops) = (request.url.clone(), 0);
                attempt += 1;
            } else {
                return Ok(response);
            }
        }
    }

    async fn once(&self, request: &Request<'_>, url: &Url) -> std::result::Result<Response, NoAnswer> {
        let own = self.is_own(url);
        let client = if own { &self.client } else { &self.other_client };
        let mut builder = client.request(request.method.clone(), url.clone()).headers(request.headers.clone());
        let authorization = self.authorization.lock().ok().and_then(|held| held.clone());
        if let Some(authorization) = authorization.filter(|_| own) {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if let Some(make) = request.body {
            builder = builder.body(make().map_err(|error| NoAnswer { why: error.to_string(), again: false })?);
        }
        match tokio::time::timeout(request.patience, builder.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(NoAnswer { why: chain(&error), again: !error.is_connect() && !error.is_builder() }),
            Err(_) => Err(NoAnswer { why: format!("no answer within {:?}", request.patience), again: false }),
        }
    }

    /// Whether a URL is of the origin that our credentials are for.
    fn is_own(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    fn redirected(&self, from: &Url, response: &Response, hops: u32, what: &str) -> Result<Url> {
        if hops > MAX_HOPS {
            return Err(Error::Malformed(format!("{what}: more than {MAX_HOPS} redirects")));
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| Error::Malformed(format!("{what}: a redirect to nowhere")))?;
        self.resolve(from, location, what)
    }

    /// Where a `Location` leads to.
    fn resolve(&self, from: &Url, location: &str, what: &str) -> Result<Url> {
        let refused = |why: &str| Error::Malformed(format!("{what}: {why}: {location:?}"));
        let mut url = from.join(location).map_err(|_| refused("a redirect to what is no URL"))?;
        let host = url.host_str().unwrap_or_default();
        let name = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        match url.scheme() {
            "https" => {}
            "http" if from.scheme() == "http" || self.plain_http.contains(&name) => {}
            _ => return Err(refused("a redirect away from HTTPS")),
        }
        // They would become credentials of our making.
        let _ = (url.set_username(""), url.set_password(None));
        Ok(url)
    }
}

fn client(known: Option<&Host>) -> Result<Client> {
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .user_agent(concat!("trimtab/", env!("CARGO_PKG_VERSION")));
    let bad = |what: &str, e: reqwest::Error| Error::Malformed(format!("{what} for a registry: {}", chain(&e)));
    if let Some(pem) = known.and_then(|known| known.ca_pem.as_deref()) {
        let trusted = reqwest::Certificate::from_pem_bundle(pem).map_err(|e| bad("certificates", e))?;
        builder = builder.tls_certs_merge(trusted);
    }
    if let Some(pem) = known.and_then(|known| known.client_pem.as_deref()) {
        builder = builder.identity(reqwest::Identity::from_pem(pem).map_err(|e| bad("our certificate", e))?);
    }
    builder.build().map_err(|e| bad("a client", e))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// What may be over in a moment.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// What the registry wants us to wait (RFC 9110, 10.2.3: seconds; a date is taken for none), within limits.
fn wait(response: &Response, attempt: u32) -> Duration {
    let said = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = said.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    seconds.unwrap_or(FIRST_WAIT * 2u32.pow(attempt - 1)).min(MAX_WAIT)
}
