//! One request through the stages: audit -> authenticate -> impersonate -> flow control -> authorize -> the resource.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use api::{Status, StatusResult, Timestamp};
use bytes::Bytes;
use futures::FutureExt;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::SemaphorePermit;

use crate::attributes::{Attributes, User};
use crate::call::Call;
use crate::core::Core;
use crate::identify::{authenticate, authorize, impersonate};
use crate::negotiate::{self, Encoding, Offer};
use crate::parts::{Audited, Body};
use crate::request::{Info, Query, Target, info};
use crate::respond::{self, Style};
use crate::serve::Peer;
use crate::{perform, plain, read};

/// The largest body, in bytes (upstream's `--max-request-body-bytes` default).
pub(crate) const MAX_BODY: usize = 3 * 1024 * 1024;
/// Of a body that is too large so much more is taken, in bytes: many clients read no answer before they sent everything.
const MAX_DRAINED: usize = 16 * 1024 * 1024;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What audit will want to know, filled in on the way.
#[derive(Default)]
struct Trail {
    attributes: Option<Attributes>,
    impersonator: Option<User>,
}

/// Answers one request, whatever happens.
pub(crate) async fn handle(core: Core, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
    let received = core.now();
    let id = audit_id(&core, request.headers());
    let style = error_style(request.headers(), &Query::parse(request.uri().query().unwrap_or_default()));
    let seen = Seen::of(&request);
    let mut trail = Trail::default();
    let stages = stages(&core, &peer, &mut trail, request, received);
    let answer = AssertUnwindSafe(stages).catch_unwind().await;
    let answer = answer.unwrap_or_else(|_| Err(Status::internal("this request caused a panic in the server")));
    let mut response = answer.unwrap_or_else(|status| respond::status(&status, style));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(AUDIT_ID, value);
    }
    record(&core, &peer, trail, seen, &response, received, id);
    response
}

struct Seen {
    method: String,
    uri: String,
    user_agent: String,
}

impl Seen {
    fn of(request: &Request<Incoming>) -> Self {
        Self {
            method: request.method().to_string(),
            uri: request.uri().to_string(),
            user_agent: respond::text(request.headers(), header::USER_AGENT).to_owned(),
        }
    }
}

fn audit_id(core: &Core, headers: &HeaderMap) -> String {
    match respond::text(headers, AUDIT_ID) {
        "" => core.entropy().uuid(),
        given => given.chars().take(64).collect(),
    }
}

fn record(
    core: &Core,
    peer: &Peer,
    trail: Trail,
    seen: Seen,
    response: &Response<Body>,
    received: Timestamp,
    id: String,
) {
    let code = response.status().as_u16();
    let Some(attributes) = trail.attributes else { return };
    core.metrics.request(&attributes.verb, code);
    let Some(audit) = &core.parts.audit else { return };
    audit.record(Audited {
        id,
        attributes,
        impersonator: trail.impersonator,
        method: seen.method,
        uri: seen.uri,
        user_agent: seen.user_agent,
        peer: peer.address,
        code,
        received,
        answered: core.now(),
        annotations: response.extensions().get::<respond::Annotations>().cloned().unwrap_or_default().0,
    });
}

/// How failures are written: as the client accepts, JSON where that is impossible.
fn error_style(headers: &HeaderMap, query: &Query) -> Style {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let accepted = negotiate::choose(accept, Offer::Objects, true).or_else(|_| negotiate::accept(accept, Offer::Forms));
    let encoding = accepted.map_or(Encoding::Json, |a| a.encoding);
    Style::of(encoding, false, headers, query)
}

async fn stages(
    core: &Core,
    peer: &Peer,
    trail: &mut Trail,
    request: Request<Incoming>,
    now: Timestamp,
) -> StatusResult<Response<Body>> {
    if broken_escape(request.uri().path()) {
        return Ok(respond::whole(400, "text/plain; charset=utf-8", "400 Bad Request"));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = info(request.method(), request.uri().path(), &query);
    let user = authenticate(core, peer, request.headers())?;
    let impersonated = impersonate(core, &user, request.headers());
    trail.attributes = Some(info.attributes(user.clone()));
    if let Some(other) = impersonated? {
        trail.attributes = Some(info.attributes(other));
        trail.impersonator = Some(user);
    }
    let Some(attributes) = trail.attributes.clone() else { return Err(Status::internal("no attributes")) };
    let _room = room(core, &info, request.method())?;
    authorize(core, &attributes)?;
    match &info.resource {
        None => {
            let (head, _) = request.into_parts();
            plain::answer(core, &head, &query).await
        }
        Some(target) => resource(core, &info, target, attributes, &query, request, now).await,
    }
}

/// Flow control, in its first form: so many requests at once and no more. Watches and long connections do not count.
fn room<'a>(core: &'a Core, info: &Info, method: &Method) -> StatusResult<Option<SemaphorePermit<'a>>> {
    let target = info.resource.as_ref();
    let long = info.verb == "watch"
        || target
            .is_some_and(|t| matches!(t.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy"));
    if long || target.is_none() {
        return Ok(None);
    }
    let reading = matches!(*method, Method::GET | Method::HEAD);
    let slots = if reading { &core.reads } else { &core.writes };
    let full = || Status::retry(429, "TooManyRequests", "Too many requests, please try again later.", 1);
    slots.try_acquire().map(Some).map_err(|_| full())
}

fn broken_escape(path: &str) -> bool {
    let bytes = path.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    (0..bytes.len()).any(|at| bytes.get(at) == Some(&b'%') && !(hex(at + 1) && hex(at + 2)))
}

/// 405 for a path that exists without that method.
pub(crate) fn not_allowed() -> Box<Status> {
    Status::failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

async fn resource(
    core: &Core,
    info: &Info,
    target: &Target,
    attributes: Attributes,
    query: &Query,
    request: Request<Incoming>,
    now: Timestamp,
) -> StatusResult<Response<Body>> {
    let Some(call) = route(core, info, target, attributes, query, request.headers(), now)? else {
        return Ok(plain::missing());
    };
    let deprecation = call.version().deprecation.as_ref().map(|text| (text, error_style(request.headers(), query)));
    let answer = match allowed(info, target, &call) {
        Ok(()) => act(core, info, &call, request).await,
        Err(status) if call.row.custom => Err(status),
        Err(status) => return Err(status),
    };
    let Some((deprecation, style)) = deprecation else { return answer };
    let mut response = answer.unwrap_or_else(|status| respond::status(&status, style));
    // It comes before what the write has to say.
    let said: Vec<HeaderValue> = response.headers().get_all(header::WARNING).iter().cloned().collect();
    response.headers_mut().remove(header::WARNING);
    respond::warn(&mut response, std::slice::from_ref(deprecation));
    let first = response.headers().get(header::WARNING).cloned();
    for warning in said.into_iter().filter(|warning| Some(warning) != first.as_ref()) {
        response.headers_mut().append(header::WARNING, warning);
    }
    Ok(response)
}

async fn act(core: &Core, info: &Info, call: &Call, request: Request<Incoming>) -> StatusResult<Response<Body>> {
    match info.verb.as_str() {
        _ if connects(core, call).is_some() => connect(core, call, request).await,
        "get" if call.target.subresource == "scale" => read::scale::get(core, call).await,
        "get" => read::get(core, call).await,
        "list" => read::list::list(core, call).await,
        "watch" => read::watch::watch(core, call.clone()).await,
        _ => {
            let body = body(request).await?;
            perform::write(core, call, body).await
        }
    }
}

/// The row that a path asks for. Where there is none it is 404 in a built-in group, and `None` in others: nobody answers
/// for those.
fn route(
    core: &Core,
    info: &Info,
    target: &Target,
    attributes: Attributes,
    query: &Query,
    headers: &HeaderMap,
    now: Timestamp,
) -> StatusResult<Option<Call>> {
    let rows = core.registry.current();
    let found = attributes.resource.as_ref().and_then(|t| rows.get(&t.group_resource())).cloned();
    let row = found.filter(|_| !info.too_deep);
    let call = row.and_then(|row| Call::new(attributes, row, query.clone(), headers.clone(), now));
    let Some(call) = call.filter(|call| fits(info, target, call)) else {
        return if rows.is_built_in(&target.group) { Err(Status::page_not_found()) } else { Ok(None) };
    };
    let name = &target.name;
    if target.named && matches!(name.as_str(), "." | "..") {
        return Err(Status::bad_request(format!("Name parameter invalid: {name:?}: may not be '{name}'")));
    }
    if target.named && name.contains('%') {
        return Err(Status::bad_request(format!("Name parameter invalid: {name:?}: may not contain '%'")));
    }
    Ok(Some(call))
}

/// Whether objects of the row stand where the path says, in a namespace or not.
fn fits(info: &Info, target: &Target, call: &Call) -> bool {
    let everywhere = call.row.namespaced() && target.namespace.is_empty();
    let is_namespace = call.row.plural == "namespaces" && call.row.group.is_empty();
    let misplaced = !call.row.namespaced() && !is_namespace && !target.namespace.is_empty();
    let over_all = matches!(info.verb.as_str(), "list" | "watch");
    !misplaced && !(everywhere && (target.named || (call.row.custom && !over_all)))
}

/// 405 for what a resource does not do, 404 for a subresource that it does not have.
fn allowed(info: &Info, target: &Target, call: &Call) -> StatusResult<()> {
    let (custom, verb) = (call.row.custom, info.verb.as_str());
    let everywhere = call.row.namespaced() && target.namespace.is_empty();
    let unknown = || if custom { Status::not_found(&call.resource(), &target.name) } else { Status::page_not_found() };
    let has = match target.subresource.as_str() {
        _ if info.head && !custom => false,
        "" if everywhere => matches!(verb, "list" | "watch") && call.row.has_verb(verb),
        "" if target.named != named_verb(verb) && verb != "watch" => false,
        "" => call.row.has_verb(verb),
        _ => call.subresource().ok_or_else(unknown)?.has_verb(verb),
    };
    match has {
        true => Ok(()),
        false if custom => Err(Status::method_not_supported(&call.resource(), verb)),
        false => Err(not_allowed()),
    }
}

fn named_verb(verb: &str) -> bool {
    matches!(verb, "get" | "update" | "patch" | "delete")
}

type Connector = Arc<dyn crate::parts::Connect>;

fn connects(core: &Core, call: &Call) -> Option<Connector> {
    let sub = call.target.subresource.as_str();
    if !matches!(sub, "log" | "exec" | "attach" | "portforward" | "proxy") {
        return None;
    }
    let name = format!("{}/{sub}", call.row.plural);
    let found = core.parts.connects.iter().find(|(group, n, _)| *group == call.row.group && *n == name);
    found.map(|(_, _, connector)| Arc::clone(connector))
}

async fn connect(core: &Core, call: &Call, request: Request<Incoming>) -> StatusResult<Response<Body>> {
    let connector = connects(core, call).ok_or_else(Status::page_not_found)?;
    // A log is read, not connected to.
    if call.target.subresource == "log" {
        return connector.connect(request, &call.attributes, core).await;
    }
    let admitted = perform::connect::admit(core, call, request).await;
    let mut response = match admitted.answer {
        Ok(request) => connector.connect(request, &call.attributes, core).await?,
        Err(status) => respond::status(&status, error_style(&call.headers, &Query::parse(""))),
    };
    respond::warn(&mut response, &admitted.warnings);
    respond::annotate(&mut response, admitted.annotations);
    Ok(response)
}

/// The whole body, up to the limit.
async fn body(request: Request<Incoming>) -> StatusResult<Bytes> {
    let mut body = request.into_body();
    match Limited::new(&mut body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            drain(body).await;
            Err(Status::too_large(format!("Request entity too large: limit is {MAX_BODY}")))
        }
        Err(error) => Err(Status::bad_request(format!("the body could not be read: {error}"))),
    }
}

/// Reads and forgets what is left of a body, up to [`MAX_DRAINED`].
async fn drain(mut body: Incoming) {
    let mut left = MAX_DRAINED;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
