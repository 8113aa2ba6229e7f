//! Paths that are no resource: health, version, metrics, discovery, OpenAPI, and the pages of other parts.

use api::{Status, StatusResult};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use serde_json::{Map, Value, json};

use crate::core::Core;
use crate::discovery::{self, Document};
use crate::negotiate::{self, Offer};
use crate::parts::Body;
use crate::request::Query;
use crate::respond::{self, Style};
use crate::rows::Rows;
use crate::service::not_allowed;

const TEXT: &str = "text/plain; charset=utf-8";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers.
pub(crate) async fn answer(core: &Core, head: &Parts, query: &Query) -> StatusResult<Response<Body>> {
    let path = head.uri.path();
    let parts: Vec<&str> = path.trim_start_matches('/').trim_end_matches('/').split('/').collect();
    let no_folder = matches!(parts.first(), Some(&("healthz" | "livez" | "readyz" | "openapi")));
    if path.starts_with("//") || (no_folder && path.ends_with('/')) {
        return Ok(missing());
    }
    if head.method == Method::HEAD && matches!(parts.first(), Some(&("api" | "version"))) {
        return Err(not_allowed());
    }
    if let Some(health) = health(core, &parts, query).await {
        return Ok(health);
    }
    let asked = Asked { core, headers: &head.headers, query, reads: head.method == Method::GET };
    match parts.as_slice() {
        [""] => asked.value(index(&core.registry.current())),
        ["version"] => asked.reading()?.json_only(version()),
        ["metrics"] => Ok(metrics(core)),
        ["api"] => asked.reading()?.api(),
        ["apis"] => asked.apis(),
        ["api", version] => asked.reading()?.resources("", version),
        ["apis", group] => asked.group(group),
        ["apis", group, version] => asked.resources(group, version),
        ["openapi", "v2"] => asked.open_api_v2(),
        ["openapi", "v3"] => Ok(asked.open_api_index()),
        ["openapi", "v3", "api", version] => asked.open_api("", version),
        ["openapi", "v3", "apis", group, version] => asked.open_api(group, version),
        _ => Ok(page(core, path).unwrap_or_else(missing)),
    }
}

fn page(core: &Core, path: &str) -> Option<Response<Body>> {
    let (media, body) = core.parts.pages.as_ref()?.page(path)?;
    Some(respond::whole(200, media, body))
}

/// 404 by nobody: no part of the server knows such a path.
pub(crate) fn missing() -> Response<Body> {
    respond::whole(404, TEXT, "404 page not found\n")
}

struct Asked<'a> {
    core: &'a Core,
    headers: &'a HeaderMap,
    query: &'a Query,
    reads: bool,
}

impl Asked<'_> {
    fn reading(self) -> StatusResult<Self> {
        if self.reads { Ok(self) } else { Err(not_allowed()) }
    }

    fn accept(&self) -> Option<&str> {
        self.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok())
    }

    fn style(&self) -> StatusResult<Style> {
        let accepted = negotiate::choose(self.accept(), Offer::Objects, true)?;
        Ok(Style::of(accepted.encoding, accepted.pretty, self.headers, self.query))
    }

    fn value(&self, value: Value) -> StatusResult<Response<Body>> {
        Ok(respond::value(200, &value, self.style()?))
    }

    /// Some pages come as JSON only.
    fn json_only(&self, value: Value) -> StatusResult<Response<Body>> {
        let accept = self.accept().unwrap_or("*/*");
        if !["json", "*/*", "application/*"].iter().any(|known| accept.contains(known)) && !accept.is_empty() {
            let why = "406: Not Acceptable\n\nAvailable representations: application/json";
            return Err(Status::failure(406, "NotAcceptable", why));
        }
        Ok(respond::whole(200, "application/json", serde_json::to_vec_pretty(&value).unwrap_or_default()))
    }

    fn rows(&self) -> std::sync::Arc<Rows> {
        self.core.registry.current()
    }

    fn api(&self) -> StatusResult<Response<Body>> {
        if self.wants_aggregated() {
            return Ok(self.aggregated(true));
        }
        self.value(discovery::core_versions(&self.core.config.advertise))
    }

    fn apis(&self) -> StatusResult<Response<Body>> {
        if self.wants_aggregated() {
            return Ok(self.aggregated(false));
        }
        let rows = self.rows();
        let document = self.core.documents.get(&rows, "apis", || discovery::group_list(&rows));
        Ok(respond::bytes(200, document.bytes, self.style()?))
    }

    /// The first clause that names a form we know decides; q-values hardly occur here.
    fn wants_aggregated(&self) -> bool {
        let accept = self.accept().unwrap_or_default();
        accept.split(',').any(|clause| {
            let has = |parameter: &str| clause.split(';').any(|p| p.trim() == parameter);
            has("application/json") && has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList") && has("v=v2")
        })
    }

    fn aggregated(&self, core: bool) -> Response<Body> {
        let rows = self.rows();
        let name = if core { "aggregated api" } else { "aggregated apis" };
        let document = self.core.documents.get(&rows, name, || discovery::aggregated(&rows, core));
        let style = Style::of(negotiate::Encoding::Json, false, self.headers, self.query);
        self.tagged(&document, AGGREGATED, style)
    }

    /// With an ETag; 304 for those who have it.
    fn tagged(&self, document: &Document, media: &'static str, style: Style) -> Response<Body> {
        let tag = format!("\"{}\"", document.hash);
        let known = respond::text(self.headers, header::IF_NONE_MATCH) == tag;
        let mut response = match known {
            true => respond::whole(304, media, ""),
            false => respond::sized(200, media, document.bytes.clone(), style),
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
        response
    }

    fn group(&self, group: &str) -> StatusResult<Response<Body>> {
        match discovery::group(&self.rows(), group) {
            // Whatever the method: only some of these pages are routes to upstream.
            Some(value) => self.value(value),
            None => Ok(missing()),
        }
    }

    fn resources(&self, group: &str, version: &str) -> StatusResult<Response<Body>> {
        let rows = self.rows();
        match discovery::resource_list(&rows, group, version) {
            Some(value) if self.reads => self.value(value),
            Some(_) => Err(not_allowed()),
            None if rows.is_built_in(group) => Err(Status::page_not_found()),
            None => Ok(missing()),
        }
    }

    fn open_api_index(&self) -> Response<Body> {
        let rows = self.rows();
        let mut paths = Map::new();
        for (group, versions) in rows.groups() {
            for version in versions {
                let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
                let hash = self.open_api_document(&rows, &group, &version).hash;
                paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
            }
        }
        respond::whole(200, TEXT, json!({ "paths": paths }).to_string())
    }

    fn open_api_document(&self, rows: &Rows, group: &str, version: &str) -> Document {
        let name = format!("openapi v3 {group}/{version}");
        self.core.documents.get(rows, &name, || discovery::open_api_v3(rows, group, version))
    }

    fn open_api(&self, group: &str, version: &str) -> StatusResult<Response<Body>> {
        let rows = self.rows();
        if !rows.has_version(group, version) {
            let mut response = respond::whole(404, TEXT, "");
            response.headers_mut().remove(header::CONTENT_TYPE);
            return Ok(response);
        }
        let document = self.open_api_document(&rows, group, version);
        let style = Style::of(negotiate::Encoding::Json, false, self.headers, self.query);
        Ok(self.tagged(&document, "application/json", Style { pretty: false, ..style }))
    }

    /// JSON, or the protobuf of gnostic that client-go asks for, by the first clause that names either.
    fn open_api_v2(&self) -> StatusResult<Response<Body>> {
        let rows = self.rows();
        let document = self.core.documents.get(&rows, "openapi v2", || discovery::open_api_v2(&rows));
        let style = Style::of(negotiate::Encoding::Json, false, self.headers, self.query);
        let style = Style { pretty: false, ..style };
        match negotiate::first(self.accept(), &OPEN_API_V2) {
            Some(0) => Ok(self.tagged(&document, OPEN_API_V2[0], style)),
            Some(_) => {
                let make = |value: &Value| api::openapi::v2_protobuf(value);
                let document = self.core.documents.encoded(&rows, "openapi v2 protobuf", &document, make);
                Ok(self.tagged(&document, OPEN_API_V2[1], style))
            }
            None => {
                let mut response = respond::whole(406, TEXT, "");
                response.headers_mut().remove(header::CONTENT_TYPE);
                Ok(response)
            }
        }
    }
}

/// The media types of `/openapi/v2`; the last is an old name of the second.
const OPEN_API_V2: [&str; 3] = [
    "application/json",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

/// `/`: the paths there are.
fn index(rows: &Rows) -> Value {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/healthz/ping",
        "/livez",
        "/livez/ping",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/readyz/ping",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for (group, versions) in rows.groups() {
        let base = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        paths.extend(versions.iter().map(|version| format!("{base}/{version}")));
        if !group.is_empty() {
            paths.push(base);
        }
    }
    paths.sort();
    json!({ "paths": paths })
}

fn version() -> Value {
    let version = api::schema::kubernetes_version();
    let mut numbers = version.trim_start_matches('v').split('.');
    let major = numbers.next().unwrap_or_default();
    let minor = numbers.next().unwrap_or_default();
    let before = minor.parse::<u32>().unwrap_or_default().saturating_sub(1).to_string();
    json!({
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": before,
        "gitVersion": format!("{version}+trimtab"),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    })
}

fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn metrics(core: &Core) -> Response<Body> {
    let rows = core.registry.current();
    let count = |row: &std::sync::Arc<crate::row::Resource>| {
        let kind = core.cache.kind(&row.storage.as_ref()?.prefix)?;
        Some((row.group_resource().to_string(), kind.count()))
    };
    let counts: Vec<(String, usize)> = rows.iter().filter_map(count).collect();
    respond::whole(200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", core.metrics.text(&counts))
}

const CHECKS: [&str; 4] = ["ping", "log", "etcd", "informer-sync"];

/// `/healthz`, `/livez`, `/readyz`, each with its single checks below it.
async fn health(core: &Core, parts: &[&str], query: &Query) -> Option<Response<Body>> {
    let (name, check) = match parts {
        [name @ ("healthz" | "livez" | "readyz")] => (*name, None),
        [name @ ("healthz" | "livez" | "readyz"), check] => (*name, Some(*check)),
        _ => return None,
    };
    let wanted: Vec<&str> = match check {
        Some(check) => vec![*CHECKS.iter().find(|known| **known == check)?],
        None => CHECKS.iter().copied().filter(|c| !query.all("exclude").any(|e| e == *c)).collect(),
    };
    let mut text = String::new();
    let mut healthy = true;
    for check in wanted {
        let good = passes(core, check, name).await;
        healthy &= good;
        text.push_str(if good { "[+]" } else { "[-]" });
        text.push_str(check);
        text.push_str(if good { " ok\n" } else { " failed: reason withheld\n" });
    }
    let verbose = query.get("verbose").is_some();
    Some(match (healthy, verbose) {
        (true, false) => respond::whole(200, TEXT, "ok"),
        (true, true) => respond::whole(200, TEXT, format!("{text}{name} check passed\n")),
        (false, _) => respond::whole(500, TEXT, format!("{text}{name} check failed\n")),
    })
}

async fn passes(core: &Core, check: &str, name: &str) -> bool {
    match check {
        "etcd" => core.cache.store().revision().await.is_ok(),
        "informer-sync" => name != "readyz" || !*core.stop.borrow(),
        _ => true,
    }
}
