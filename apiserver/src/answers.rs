//! Creates that answer instead of storing: reviews and TokenRequest.

use std::sync::Arc;

use api::{Document, Schema, Status};
use store::Txn;

use crate::call::Call;
use crate::core::Core;
use crate::parts;
use crate::perform::session::{Session, Settled};
use crate::write::machine::{Machine, Stepped};
use crate::write::{Answer, Done, Request, Shown};

/// Who answers a create of this resource or subresource, if anyone does.
pub(crate) fn answerer(core: &Core, call: &Call) -> Option<Arc<dyn parts::Answer>> {
    if call.attributes.verb != "create" {
        return None;
    }
    let name = match call.target.subresource.as_str() {
        "" => call.row.plural.clone(),
        sub => format!("{}/{sub}", call.row.plural),
    };
    let found = core.parts.answers.iter().find(|(group, n, _)| *group == call.row.group && *n == name);
    found.map(|(_, _, answerer)| Arc::clone(answerer))
}

/// Decodes, defaults, and lets it answer.
pub(crate) async fn answer(core: &Core, request: &Request, answerer: &dyn parts::Answer) -> Done {
    let Settled { answer, warnings, annotations } = Session::new(core, request).settle(admitted).await;
    let call = &request.call;
    let answer = answer.and_then(|document| answerer.answer(document, &call.attributes, core, call.now));
    let answer = answer.map(|document| Answer { code: 201, shown: Shown::Object(document) });
    Done { txn: Txn::default(), answer, warnings, annotations, goes_on: false }
}

fn admitted(machine: &mut Machine<'_>) -> Stepped<Document> {
    let request = machine.request;
    let call = &request.call;
    let kind = call.subresource().map_or_else(|| call.row.kind_in(call.version()), |sub| sub.kind.clone());
    let schema = Schema::of_kind(&kind.group, &kind.version, &kind.kind).ok_or_else(Status::page_not_found)?;
    let decoded = schema.decode(&request.body, request.format, request.options.validation)?;
    machine.warnings.extend(decoded.warnings);
    let mut document = decoded.document;
    document.set("/apiVersion", kind.group_version().to_string());
    document.set("/kind", kind.kind.as_str());
    schema.default(&mut document);
    let name = if machine.object_name().name.is_empty() { document.name() } else { &machine.object_name().name };
    let admission = machine.admission_of("create", name, &kind);
    machine.admit(&admission, &mut document, None)?;
    Ok(document)
}
