//! Bodies: media types, kinds, namespaces and names against the path.

use api::decode::Format;
use api::{Document, GroupKind, GroupVersion, GroupVersionKind, Schema, Status, StatusResult};
use http::{HeaderMap, header};

use super::machine::{Machine, Stepped};
use crate::respond::text;
use crate::row::Resource;

const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A protobuf body as JSON; others as they are.
pub(crate) fn transcoded(call: &crate::call::Call, body: bytes::Bytes) -> StatusResult<bytes::Bytes> {
    let deletes = call.attributes.verb.starts_with("delete");
    if media_type(&call.headers) != PROTOBUF || (deletes && body.is_empty()) {
        return Ok(body);
    }
    let kind = call.subresource().map_or(call.row.kind.as_str(), |sub| sub.kind.kind.as_str());
    Ok(crate::protobuf::to_json(&body, (!deletes).then_some(kind))?.into())
}

/// The media type of a request's body, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    text(headers, header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned()
}

/// The format of an object's body; 415 for others.
pub(crate) fn format(headers: &HeaderMap) -> StatusResult<Format> {
    let media = media_type(headers).to_ascii_lowercase();
    if !well_formed(text(headers, header::CONTENT_TYPE)) {
        return Err(Status::unsupported_media_type(&ACCEPTED));
    }
    match media.as_str() {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        // Transcoded before anyone reads it.
        PROTOBUF => Ok(Format::Json),
        _ => Err(Status::unsupported_media_type(&ACCEPTED)),
    }
}

/// Whether all parameters of a media type say something, as Go's reader insists; one semicolon may end it.
fn well_formed(media: &str) -> bool {
    let parameters: Vec<&str> = media.split(';').skip(1).map(str::trim).collect();
    let said =
        |parameter: &str| parameter.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty());
    match parameters.as_slice() {
        [] => true,
        [said_all @ .., ""] => said_all.iter().all(|parameter| said(parameter)),
        all => all.iter().all(|parameter| said(parameter)),
    }
}

/// 415 for a patch: upstream's router refuses it for a built-in resource, a handler for a custom one.
pub(crate) fn unknown_patch(custom: bool) -> Box<Status> {
    if custom {
        let offered = ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
        return Status::unsupported_media_type(&offered);
    }
    Status::failure(415, "UnsupportedMediaType", "415: Unsupported Media Type")
}

/// Reads the request's object by a schema, and sees to it that its kind is the one wanted.
pub(crate) fn decode(machine: &mut Machine<'_>, schema: &Schema, wanted: &GroupVersionKind) -> Stepped<Document> {
    let request = machine.request;
    let decoded = schema.decode(&request.body, request.format, request.options.validation)?;
    machine.warnings.extend(decoded.warnings);
    let mut document = decoded.document;
    // A custom object's own rules look at its kind.
    if !schema.is_custom() {
        right_kind(&mut document, wanted)?;
    }
    Ok(document)
}

fn right_kind(document: &mut Document, wanted: &GroupVersionKind) -> StatusResult<()> {
    let expected = wanted.group_version().to_string();
    if document.api_version().is_empty() {
        document.set("/apiVersion", expected.as_str());
    }
    if document.kind().is_empty() {
        document.set("/kind", wanted.kind.as_str());
    }
    let (given, kind) = (document.api_version().to_owned(), document.kind().to_owned());
    if given != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({expected})"
        )));
    }
    match kind == wanted.kind {
        true => Ok(()),
        false => Err(Status::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            wanted.kind
        ))),
    }
}

/// The kind that errors about an object name: a custom one says itself what it is.
pub(crate) fn kind_of(row: &Resource, object: &Document) -> GroupKind {
    match GroupVersion::parse(object.api_version()).filter(|_| row.custom) {
        Some(version) => version.kind(object.kind()).group_kind(),
        None => row.group_kind(),
    }
}

/// The namespace must be the path's, or none; then it becomes the path's. Where objects stand in none, it goes.
pub(crate) fn namespace(machine: &Machine<'_>, document: &mut Document) -> StatusResult<()> {
    let row = &machine.request.call.row;
    let expected = if row.namespaced() { machine.object_name().namespace.as_str() } else { "" };
    let given = document.namespace();
    if given == expected {
        return Ok(());
    }
    if !given.is_empty() && row.namespaced() {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    match expected {
        "" => drop(document.remove("/metadata/namespace")),
        expected => document.set("/metadata/namespace", expected),
    }
    Ok(())
}

/// The name must be the path's.
pub(crate) fn name(machine: &Machine<'_>, document: &Document) -> StatusResult<()> {
    let expected = &machine.object_name().name;
    match document.name() {
        "" => Err(Status::bad_request(format!(
            "the name of the object ({expected} based on URL) was undeterminable: name must be provided"
        ))),
        given if given != expected => Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({expected})"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::format;

    #[test]
    fn a_media_type_s_parameters_say_something() {
        let cases = [
            ("application/json", true),
            ("APPLICATION/JSON; charset=utf-8", true),
            ("application/yaml;", true),
            ("application/json; charset=", false),
            ("application/json;;", false),
            ("text/plain", false),
        ];
        for (media, fits) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
            assert_eq!(format(&headers).is_ok(), fits, "{media}");
        }
    }
}
