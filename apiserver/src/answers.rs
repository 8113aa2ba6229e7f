//! Creates that answer instead of storing: reviews and TokenRequest.

use std::sync::Arc;

use api::{Schema, Status};
use store::Txn;

use crate::call::Call;
use crate::core::Core;
use crate::parts;
use crate::write::{Answer, Done, Request, Shown, admit};

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
pub(crate) fn answer(core: &Core, request: &Request, answerer: &dyn parts::Answer) -> Done {
    let call = &request.call;
    let kind = call.subresource().map_or_else(|| call.row.kind_in(call.version()), |sub| sub.kind.clone());
    let mut warnings = Vec::new();
    let mut decide = || {
        let schema = Schema::of_kind(&kind.group, &kind.version, &kind.kind).ok_or_else(Status::page_not_found)?;
        let decoded = schema.decode(&request.body, request.format, request.options.validation)?;
        warnings = decoded.warnings;
        let mut document = decoded.document;
        document.set("/apiVersion", kind.group_version().to_string());
        document.set("/kind", kind.kind.as_str());
        schema.default(&mut document);
        admit::answered(&core.parts.admission, core, call, &mut document, request.options.dry_run)?;
        answerer.answer(document, &call.attributes, core, call.now)
    };
    let answer = decide().map(|document| Answer { code: 201, shown: Shown::Object(document) });
    Done { txn: Txn::default(), answer, warnings }
}
