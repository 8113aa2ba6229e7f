//! Which form of an answer a client gets, by its `Accept` header (`k8s.io/apiserver/pkg/endpoints/handlers/negotiation`).

use api::{Status, StatusResult};

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// What is shown of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    Native,
    /// `as=Table`, in `v1` or `v1beta1`.
    Table(&'static str),
    /// `as=PartialObjectMetadata`.
    Partial(&'static str),
    /// `as=PartialObjectMetadataList`.
    PartialList(&'static str),
}

/// The outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) struct Accepted {
    pub encoding: Encoding,
    pub form: Form,
    pub pretty: bool,
}

/// What an endpoint can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Plain objects: writes, discovery.
    Objects,
    /// Tables and metadata too: get, list.
    Forms,
    /// Metadata too, but no tables: what is not stored (reviews), and parts of objects (tokens).
    Metadata,
    /// A watch.
    Stream,
}

const SUPPORTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    quality: f64,
    parameters: Vec<(&'a str, &'a str)>,
}

/// Chooses among JSON and YAML. 406 where nothing fits.
pub(crate) fn accept(header: Option<&str>, offer: Offer) -> StatusResult<Accepted> {
    choose(header, offer, false)
}

/// Chooses, also protobuf where the resource has it.
pub(crate) fn choose(header: Option<&str>, offer: Offer, protobuf: bool) -> StatusResult<Accepted> {
    let plain = Accepted { encoding: Encoding::Json, form: Form::Native, pretty: false };
    let header = header.unwrap_or_default();
    if header.is_empty() {
        return Ok(plain);
    }
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(clause).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(wildness(a).cmp(&wildness(b))));
    let found = clauses.iter().find_map(|clause| fit(clause, offer, protobuf));
    let found = found.ok_or_else(|| refuse(&clauses, offer))?;
    // A watch is first looked at as a list, which YAML is good for.
    match (offer, found.encoding) {
        (Offer::Stream, Encoding::Yaml) => Err(Status::not_acceptable(&STREAMS)),
        _ => Ok(found),
    }
}

/// The place in `offers` of the first media type that a header asks for, best quality first; without a header the first.
pub(crate) fn first(header: Option<&str>, offers: &[&str]) -> Option<usize> {
    let mut clauses: Vec<Clause<'_>> = header.unwrap_or("*/*").split(',').filter_map(clause).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let fits = |c: &Clause<'_>, offer: &str| {
        offer.split_once('/').is_some_and(|(main, sub)| {
            matches!(c.main, "*") || (c.main == main && matches!(c.sub, "*")) || (c.main == main && c.sub == sub)
        })
    };
    clauses.iter().find_map(|c| offers.iter().position(|offer| fits(c, offer)))
}

/// Two layers refuse upstream: the router by media type alone, the handler by form.
fn refuse(clauses: &[Clause<'_>], offer: Offer) -> Box<Status> {
    let known = |c: &Clause<'_>| {
        matches!((c.main, c.sub), ("*", "*") | ("application", "json" | "yaml" | "vnd.kubernetes.protobuf"))
    };
    if clauses.iter().any(known) {
        return Status::not_acceptable(&SUPPORTED);
    }
    let streams: &[&str] = if offer == Offer::Stream { &STREAMS } else { &[] };
    let list = [&SUPPORTED, streams].concat().join(", ");
    Status::failure(406, "NotAcceptable", format!("406: Not Acceptable\n\nAvailable representations: {list}"))
}

fn wildness(clause: &Clause<'_>) -> u8 {
    u8::from(clause.main == "*") + u8::from(clause.sub == "*")
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?;
    let (main, sub) = match media.split_once('/') {
        Some((main, sub)) => (main.trim(), sub.trim()),
        None => return None,
    };
    let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
    let quality = parameters.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
    Some(Clause { main, sub, quality, parameters })
}

fn fit(clause: &Clause<'_>, offer: Offer, protobuf: bool) -> Option<Accepted> {
    let encoding = match (clause.main, clause.sub) {
        ("*", "*") | ("application", "json") => Encoding::Json,
        ("application", "vnd.kubernetes.protobuf") if protobuf => Encoding::Protobuf,
        ("application", "yaml") => Encoding::Yaml,
        _ => return None,
    };
    let get = |key: &str| clause.parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v.trim());
    let stream = get("stream");
    if !matches!(stream, "" | "watch") || (stream == "watch" && encoding == Encoding::Yaml) {
        return None;
    }
    let form = form(get("as"), get("g"), get("v"), offer)?;
    // Upstream's tables have no protobuf.
    if encoding == Encoding::Protobuf && matches!(form, Form::Table(_)) {
        return None;
    }
    Some(Accepted { encoding, form, pretty: get("pretty") == "1" })
}

fn form(kind: &str, group: &str, version: &str, offer: Offer) -> Option<Form> {
    if [kind, group, version].iter().all(|part| part.is_empty()) {
        return Some(Form::Native);
    }
    let version = match version {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        _ => return None,
    };
    match kind {
        _ if offer == Offer::Objects || group != "meta.k8s.io" => None,
        "Table" if offer == Offer::Metadata => None,
        "Table" => Some(Form::Table(version)),
        "PartialObjectMetadata" => Some(Form::Partial(version)),
        "PartialObjectMetadataList" => Some(Form::PartialList(version)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Encoding, Form, Offer, accept};

    #[test]
    fn the_best_clause_that_can_be_met_wins() {
        let cases: &[(&str, Option<(Encoding, Form)>)] = &[
            ("", Some((Encoding::Json, Form::Native))),
            ("application/json;q=0.5,application/yaml", Some((Encoding::Yaml, Form::Native))),
            ("text/html,application/json", Some((Encoding::Json, Form::Native))),
            ("text/html", None),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Encoding::Json, Form::Native))),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some((Encoding::Json, Form::Table("v1"))),
            ),
            ("application/json;as=Table;g=meta.k8s.io;v=v1;q=0.9,*/*;q=0.1", Some((Encoding::Json, Form::Table("v1")))),
            ("application/json;as=Table", None),
        ];
        for (header, want) in cases {
            let got = accept(Some(header), Offer::Forms).ok().map(|a| (a.encoding, a.form));
            assert_eq!(got, *want, "{header}");
        }
    }
}
